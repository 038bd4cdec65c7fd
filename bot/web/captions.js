// What both sides said, as it is said: one list item a turn, the caller's words above the bot's.

export class Captions {
  #log;
  #bot;
  #turns = new Map(); // turn number -> its elements
  #waiting = null;
  #transcribes = true; // until the server says that this model writes down nothing of the caller's

  constructor(log, botName) {
    this.#log = log;
    this.#bot = botName;
    log.replaceChildren();
    this.#waiting = element('li', 'waiting', 'What is said will appear here.');
    log.append(this.#waiting);
  }

  // The call goes on in another one, which numbers its turns from 0 again.
  goOn() {
    for (const number of this.#turns.keys()) this.#finish(number);
    this.#turns.clear();
  }

  // A Parley message; those that are not about what was said are left alone.
  show(message) {
    const { type, turn } = message;
    if (type === 'call') this.#transcribes = message.transcribes;
    else if (type === 'user-text') this.#write(turn, 'caller', 'You: ', message.text);
    else if (type === 'bot-text') this.#write(turn, 'bot', `${this.#bot}: `, message.text, true);
    else if (type === 'bot-done') this.#finish(turn);
    else if (type === 'interrupted') this.#finish(turn, true);
    else if (type === 'sources') this.#sources(turn, message.names);
    else if (type === 'latency') this.#latency(turn, message.ms);
  }

  #turn(number) {
    const known = this.#turns.get(number);
    if (known) return known;
    this.#waiting.remove();
    const item = element('li', 'turn');
    const parts = { item };
    for (const part of ['caller', 'bot', 'sources', 'note']) parts[part] = element('p', part);
    item.append(parts.caller, parts.bot, parts.sources, parts.note);
    // A late transcript belongs to its turn, wherever the bot is by now.
    const after = [...this.#turns].filter(([other]) => other > number).map(([, turn]) => turn.item)[0];
    this.#log.insertBefore(item, after ?? null);
    this.#turns.set(number, parts);
    return parts;
  }

  #write(number, side, who, text, more = false) {
    const atEnd = this.#log.scrollHeight - this.#log.scrollTop - this.#log.clientHeight < 60;
    const turn = this.#turn(number);
    const words = turn[side];
    if (!words.childNodes.length) words.append(element('span', 'hidden-text', who), document.createTextNode(''));
    const node = words.lastChild;
    // Busy while it grows: a screen reader says the sentence once, whole, and not syllable by syllable.
    if (more) turn.item.setAttribute('aria-busy', 'true');
    node.data = more ? (node.data + text).replace(/^\s+/, '') : text.trim();
    if (atEnd) this.#log.scrollTop = this.#log.scrollHeight; // unless the reader has scrolled back
  }

  #finish(number, cut = false) {
    const turn = this.#turns.get(number);
    if (!turn) return;
    turn.item.removeAttribute('aria-busy');
    turn.bot.classList.toggle('cut', cut);
  }

  #sources(number, names) {
    this.#turn(number).sources.textContent = `Looked up in ${names.join('; ')}`;
  }

  #latency(number, ms) {
    const seconds = (ms / 1000).toFixed(2);
    this.#turn(number).note.textContent = `answered after ${seconds} s`;
    if (!this.#transcribes) {
      this.#write(number, 'caller', 'You: ', '(you spoke)');
      this.#turn(number).caller.classList.add('untold');
    }
    this.#turn(number).note.title = 'From your last sound to the first sound of the answer, measured by Parley.';
  }
}

function element(name, className, text = '') {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}
