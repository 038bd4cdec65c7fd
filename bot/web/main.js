// The page: what is shown before, during and after a call.

import { Call } from './call.js';
import { Captions } from './captions.js';
import { Meter } from './meter.js';
import { NEEDS_KEY, UNREACHABLE, authorization, environmentProblem } from './problems.js';

const ASK_AGAIN_MS = 1500; // while Parley is getting ready
const REDIAL_MS = 60000; // a call that broke off is placed again for so long
const REDIAL_EVERY_MS = 2000;

const $ = (id) => document.getElementById(id);
const button = $('call');
const mute = $('mute');
const voice = $('voice').querySelector('select');
const meter = new Meter($('meter'));

let info = null; // what /api/info said last
let call = null;
let notice = null; // the bot's own word on why the call ends
let ticking = 0;
let begunAt = 0;

// --- before a call ---

async function refresh() {
  try {
    const response = await fetch('api/info', { cache: 'no-store', headers: authorization() });
    const said = await response.json();
    info = response.ok ? said : null;
    if (info) show(info);
    else if (!call) say(said.error.message);
  } catch {
    info = null;
    if (!call) say(UNREACHABLE);
  }
  if (!call) button.disabled = !info?.ready || info.needs_key;
  if (!info?.ready) setTimeout(refresh, ASK_AGAIN_MS);
}

function show({ agent, label, checkpoint, examples, ready, reason, needs_key: needsKey }) {
  $('agent').textContent = agent.name;
  document.title = `${agent.name} · Parley`;
  document.documentElement.lang = agent.language;
  showModel(checkpoint, label);
  showExamples(examples);
  if (!call) say(needsKey ? NEEDS_KEY : ready ? '' : reason);
}

function showModel(checkpoint, label) {
  $('model').hidden = !label;
  $('model').textContent = label;
  $('about').textContent = checkpoint ? `Answered by ${checkpoint}, one speech model that listens and speaks.` : '';
}

function showExamples(examples) {
  $('examples').hidden = !examples.length;
  $('asks').replaceChildren(...examples.map((text) => {
    const item = document.createElement('li');
    item.textContent = text;
    return item;
  }));
}

function showVoices(names, descriptions, present) {
  $('voice').hidden = names.length < 2;
  voice.replaceChildren(...names.map((name) => {
    const said = descriptions[name]?.replace(/\.$/, '');
    return new Option(said ? `${said} (${name})` : name, name);
  }));
  voice.value = present;
}

const say = (text) => { if ($('status').textContent !== text) $('status').textContent = text; };

// --- the call ---

function begin() {
  complain(null);
  const unable = environmentProblem();
  if (unable) return complain(unable);
  begunAt = 0;
  dial(new Captions($('log'), info?.agent.name ?? 'Parley'));
}

// `resume` goes on with a call that broke off; `until` is when it is given up, and 0 for a first call.
function dial(captions, resume = null, until = 0) {
  notice = null;
  call = new Call(info?.ice_servers ?? [], resume);
  call.addEventListener('state', ({ detail }) => state(detail));
  call.addEventListener('message', ({ detail }) => {
    captions.show(detail);
    if (detail.type === 'call') {
      showModel(detail.checkpoint, detail.label);
      if (detail.examples?.length) showExamples(detail.examples);
      showVoices(detail.voices ?? [], detail.descriptions ?? {}, detail.voice);
      complain(null); // a session again, after one that was lost
    } else if (detail.type === 'voice') {
      voice.value = detail.voice;
    } else if (detail.type === 'notice') {
      notice = detail;
      if (!detail.ended || detail.again) complain({ message: detail.text, retry: false });
    }
  });
  call.addEventListener('speaking', ({ detail }) => say(detail ? 'Answering' : 'Listening'));
  call.addEventListener('over', ({ detail }) => {
    const broken = detail?.lost || (!detail && notice?.again);
    if (broken && call.resume) redial(captions, call.resume, Date.now() + REDIAL_MS, 0);
    else if (detail?.retry && Date.now() < until) redial(captions, call.resume, until, REDIAL_EVERY_MS);
    else over(detail);
  });
  call.start();
}

function redial(captions, resume, until, wait) {
  clearInterval(ticking);
  meter.stop();
  captions.goOn();
  const waiting = setTimeout(() => dial(captions, resume, until), wait);
  call = { mute() {}, chooseVoice() {}, hangUp() { clearTimeout(waiting); notice = null; over(null); } };
  document.body.dataset.state = 'connecting';
  say('The connection broke. Calling again …');
}

function state(now) {
  if (now === 'connecting') {
    document.body.dataset.state = 'connecting';
    label('Hang up', true);
    say(begunAt ? 'The connection broke. Calling again …' : 'Connecting …');
  } else if (now === 'weak') {
    say('The connection is weak …');
  } else if (document.body.dataset.state !== 'live') {
    document.body.dataset.state = 'live';
    $('captions').hidden = $('meter').hidden = mute.hidden = false;
    meter.start(call.microphone);
    call.mute(mute.dataset.on === 'true');
    clock();
    say('Listening');
  } else {
    say('Listening');
  }
}

function over(problem) {
  const talked = begunAt > 0;
  call = null;
  clearInterval(ticking);
  meter.stop();
  document.body.dataset.state = 'idle';
  $('meter').hidden = mute.hidden = $('voice').hidden = true;
  $('timer').textContent = '';
  muted(false);
  label('Call', false);
  button.disabled = false;
  if (problem) complain(problem);
  else if (notice?.ended) complain({ message: notice.text, retry: notice.level === 'error' });
  else complain(null);
  say(talked && !problem ? 'The call has ended.' : '');
  button.focus({ preventScroll: true });
  if (!problem) refreshLater();
}

// Whether the engine is still there is worth knowing again, but not at the cost of the words just shown.
function refreshLater() {
  setTimeout(() => { if (!call) refresh(); }, 3000);
}

function label(text, hangUp) {
  button.querySelector('span').textContent = text;
  button.classList.toggle('hang-up', hangUp);
}

function clock() {
  begunAt ||= performance.now();
  const show = () => {
    const seconds = Math.floor((performance.now() - begunAt) / 1000);
    $('timer').textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`;
  };
  show();
  ticking = setInterval(show, 1000);
}

function complain(problem) {
  const box = $('problem');
  box.replaceChildren();
  if (!problem) return;
  const words = document.createElement('p');
  words.textContent = problem.message;
  box.append(words);
  if (problem.retry && !call) {
    const again = document.createElement('button');
    again.type = 'button';
    again.textContent = 'Try again';
    again.addEventListener('click', begin);
    box.append(again);
  }
}

function muted(on) {
  call?.mute(on);
  mute.dataset.on = on;
  mute.textContent = on ? 'Unmute' : 'Mute';
  $('meter').classList.toggle('muted', on);
}

button.addEventListener('click', () => (call ? call.hangUp() : begin()));
mute.addEventListener('click', () => muted(mute.dataset.on !== 'true'));
voice.addEventListener('change', () => call?.chooseVoice(voice.value));
window.addEventListener('pagehide', () => call?.hangUp());
window.addEventListener('hashchange', () => { if (!call) location.reload(); }); // another key
document.addEventListener('visibilitychange', () => { if (!document.hidden && !call) refresh(); });

const unable = environmentProblem();
if (unable) complain(unable);
refresh();
