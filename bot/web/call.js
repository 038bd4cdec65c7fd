// One call: microphone, peer connection and data channel, as pipecat's SmallWebRTC transport expects them.
//
// Events: "state" (detail "connecting" | "live" | "weak"), "message" (a Parley message, see
// pipeline/page_messages.py), "speaking" (detail true | false: the bot), "over" (detail a Problem, or null).

import { Problem, UNREACHABLE, authorization, lost, microphoneProblem, refusalProblem } from './problems.js';

const LABEL = 'rtvi-ai';
const RTVI_VERSION = '2.0.0';
const PING_MS = 1000; // the server takes a caller silent for 3 s for gone
const WEAK_MS = 5000; // how long a broken connection may take to mend itself
const CONNECT_MS = 15000;

export class Call extends EventTarget {
  #iceServers;
  #peer = null;
  #channel = null;
  #speaker = null;
  #id = null;
  #early = []; // candidates found before the answer named the connection
  #timers = new Set();
  #sent = 0; // RTVI messages
  #over = false;
  #connected = false; // ever
  microphone = null; // MediaStream, once allowed
  resume = null; // goes on with this call's conversation in another call

  // `resume`: that of an earlier call which broke off.
  constructor(iceServers, resume = null) {
    super();
    this.#iceServers = iceServers;
    this.resume = resume;
  }

  // Place the call. Ends, always, in one "over" event.
  async start() {
    this.#tell('state', 'connecting');
    try {
      this.microphone = await navigator.mediaDevices
        .getUserMedia({ audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true } })
        .catch((error) => { throw microphoneProblem(error); });
      if (this.#over) return this.#release();
      await this.#connect();
    } catch (error) {
      this.#end(error instanceof Problem ? error : new Problem(`The call failed (${error.name}: ${error.message}).`));
    }
  }

  hangUp() {
    this.#end(null);
  }

  // Ask for another voice, one of those that the "call" message named.
  chooseVoice(voice) {
    this.#rtvi('client-message', { t: 'set-voice', d: { voice } });
  }

  mute(muted) {
    for (const track of this.microphone?.getAudioTracks() ?? []) track.enabled = !muted;
  }

  async #connect() {
    const peer = (this.#peer = new RTCPeerConnection({ iceServers: this.#iceServers }));
    const [track] = this.microphone.getAudioTracks();
    track.addEventListener('ended', () => this.#end(new Problem('The microphone was disconnected.')));
    peer.addTransceiver(track, { direction: 'sendrecv', streams: [this.microphone] });
    peer.addEventListener('track', (event) => this.#play(event.track));
    peer.addEventListener('icecandidate', (event) => this.#candidate(event.candidate));
    peer.addEventListener('connectionstatechange', () => this.#connection(peer.connectionState));
    this.#open(peer.createDataChannel('parley', { ordered: true }));
    this.#after(CONNECT_MS, () => {
      if (!this.#connected) {
        this.#end(new Problem('No connection came about. A firewall may be in the way.'));
      }
    });

    await peer.setLocalDescription();
    const offer = { sdp: peer.localDescription.sdp, type: 'offer', resume: this.resume };
    const response = await this.#send('POST', offer);
    if (this.#over) return;
    if (!response.ok) throw await refusalProblem(response);
    const answer = await response.json();
    if (this.#over) return;
    this.#id = answer.pc_id;
    this.resume = answer.resume;
    await peer.setRemoteDescription({ type: answer.type, sdp: answer.sdp });
    await this.#sendCandidates(this.#early.splice(0));
  }

  #send(method, body) {
    return fetch('api/offer', {
      method,
      headers: { 'Content-Type': 'application/json', ...authorization() },
      body: JSON.stringify(body),
    }).catch(() => { throw new Problem(UNREACHABLE); });
  }

  #candidate(candidate) {
    if (!candidate) return;
    const { candidate: line, sdpMid, sdpMLineIndex } = candidate;
    const found = { candidate: line, sdp_mid: sdpMid, sdp_mline_index: sdpMLineIndex };
    if (this.#id === null) this.#early.push(found);
    else this.#sendCandidates([found]).catch(() => {}); // others may do, and the connection's state tells
  }

  async #sendCandidates(candidates) {
    if (candidates.length && !this.#over) await this.#send('PATCH', { pc_id: this.#id, candidates });
  }

  #connection(state) {
    if (state === 'connected') {
      this.#connected = true;
      this.#tell('state', 'live');
    } else if (state === 'disconnected') {
      this.#tell('state', 'weak');
      this.#after(WEAK_MS, () => {
        if (this.#peer?.connectionState !== 'connected') this.#end(lost());
      });
    } else if (state === 'failed') {
      this.#end(lost());
    }
  }

  #play(track) {
    this.#speaker = new Audio();
    this.#speaker.autoplay = true;
    this.#speaker.srcObject = new MediaStream([track]);
    this.#speaker.play().catch(() => {}); // autoplay was asked for; a press of Call permits it everywhere
  }

  #open(channel) {
    this.#channel = channel;
    channel.addEventListener('open', () => {
      const ping = () => channel.readyState === 'open' && channel.send(`ping: ${Date.now()}`);
      ping();
      this.#timers.add(setInterval(ping, PING_MS));
      this.#rtvi('client-ready', { version: RTVI_VERSION, about: { library: 'parley-page', library_version: '1' } });
    });
    channel.addEventListener('message', (event) => this.#hear(event.data));
    // The bot hung up: a lost connection shows in the peer's state instead, and later.
    channel.addEventListener('close', () => this.#end(null));
  }

  #rtvi(type, data) {
    if (this.#channel?.readyState !== 'open') return;
    this.#channel.send(JSON.stringify({ label: LABEL, id: `page-${++this.#sent}`, type, data }));
  }

  #hear(text) {
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return; // not for us
    }
    if (message.type === 'signalling' && message.message?.type === 'peerLeft') this.#end(null);
    if (message.label !== LABEL) return;
    if (message.type === 'server-message' && message.data) this.#tell('message', message.data);
    if (message.type === 'bot-started-speaking') this.#tell('speaking', true);
    if (message.type === 'bot-stopped-speaking') this.#tell('speaking', false);
  }

  #after(ms, action) {
    this.#timers.add(setTimeout(() => { if (!this.#over) action(); }, ms));
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #end(problem) {
    if (this.#over) return;
    this.#over = true;
    this.#release();
    this.#tell('over', problem);
  }

  #release() {
    for (const timer of this.#timers) clearTimeout(timer);
    for (const track of this.microphone?.getTracks() ?? []) track.stop();
    if (this.#speaker) this.#speaker.srcObject = null;
    this.#channel?.close();
    this.#peer?.close();
  }
}
