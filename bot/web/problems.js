// What can go wrong, in words for the person on the line.

export class Problem extends Error {
  // `retry`: whether pressing "Try again" could help. `lost`: a call that went well broke off.
  constructor(message, { retry = true, lost = false } = {}) {
    super(message);
    this.retry = retry;
    this.lost = lost;
  }
}

// The key of an agent that wants one comes behind the page's address, as #key=...: browsers send that to nobody.
const KEY = new URLSearchParams(location.hash.slice(1)).get('key');

export const authorization = () => (KEY ? { Authorization: `Bearer ${KEY}` } : {});

export const NEEDS_KEY = KEY
  ? 'The key in this page’s address does not open this agent.'
  : 'This agent answers only callers with a key. Open its page with #key=… at the end of the address.';

export const lost = () => new Problem('The call was lost: the connection broke.', { lost: true });
export const UNREACHABLE = 'Parley cannot be reached. Is it still running?';

const MICROPHONE = {
  NotAllowedError: 'This page may not use your microphone. Allow the microphone in the address bar, then try again.',
  NotFoundError: 'No microphone was found. Connect one, then try again.',
  NotReadableError: 'Your microphone cannot be used: another program may be holding it.',
  OverconstrainedError: 'Your microphone cannot be used by this page.',
  SecurityError: 'Your browser’s settings forbid the microphone on this page.',
};

export function microphoneProblem(error) {
  return new Problem(MICROPHONE[error.name] ?? `Your microphone could not be opened (${error.name}).`);
}

// Browsers hand the microphone only to pages from this machine or over HTTPS.
export function environmentProblem() {
  if (!window.isSecureContext) {
    const here = `http://localhost:${location.port || 80}`;
    return new Problem(
      `Browsers give the microphone only to secure pages. Open this page over HTTPS, or as ${here} on the machine itself.`,
      { retry: false },
    );
  }
  if (!navigator.mediaDevices?.getUserMedia || !window.RTCPeerConnection) {
    return new Problem('This browser cannot place calls. A current Chrome, Edge, Firefox or Safari can.', { retry: false });
  }
  return null;
}

// The server's own refusal: {"error": {"code", "message"}}.
export async function refusalProblem(response) {
  try {
    const { error } = await response.json();
    return new Problem(error.message);
  } catch {
    return new Problem(`Parley refused the call (${response.status}).`);
  }
}
