// What a page knows of the chat, and how it speaks with it: topics, numbers, ticks. TOPICS.md says why.
// Nothing here touches the document.

import { Client, Store, claimSlot } from "./mqtt/index.js"

const stores = {
  messages: { keyPath: ["conv", "seq"] }, // as they came
  outgoing: { keyPath: "n" }, // written here, and their echo has not come: { n, conv, text, at, step }
  marks: { keyPath: ["conv", "who"] }, // { conv, who, d, r }: up to there delivered, read
  convs: { keyPath: "conv" },
  counters: { keyPath: "name" },
}
const slots = new Map() // by user, as long as the page lives
const rank = { waiting: 0, open: 1, closed: 2 }
const decoder = new TextDecoder()

// A public name for a device, the same each time.
function labelOf(name) {
  const key = `chat-label-${name}`
  const label = localStorage.getItem(key) ?? crypto.getRandomValues(new Uint32Array(1))[0].toString(36)
  localStorage.setItem(key, label)
  return label
}
const json = message => JSON.parse(decoder.decode(message.payload))

/**
 * Events: "change" (something to be shown is new), "typing" { conv, by }, "notice" { conv, text },
 * "state" (of the connection, as the client's).
 */
export class Model extends EventTarget {
  convs = new Map() // id -> { conv, with, state, opened }
  outgoing = new Map() // n -> message
  presence = new Map() // name -> Map(client id -> there)
  #messages = new Map() // conv -> Map(seq -> message)
  #marks = new Map() // "conv who" -> { d, r }
  #counter = 0
  #watched = new Set() // names whose presence we subscribe to
  #toMark = new Map() // conv -> timer
  #gaps = new Map() // conv -> timer of a request for what is missing

  /** Signs in. Rejects when the broker does not accept the name and password. */
  static async open({ user, password, assistants, url, keepalive }) {
    if (!slots.has(user)) slots.set(user, await claimSlot(`chat-${user}`)) // held also when a password was wrong
    const slot = slots.get(user)
    const device = localStorage.getItem("chat-device") ?? crypto.getRandomValues(new Uint32Array(1))[0].toString(36)
    localStorage.setItem("chat-device", device)
    // Without locks each page is a device of its own, for as long as it is open. The client id is nobody else's
    // business: who knows it can end the session. So an assistant's presence, which all may see, has another name.
    const name = slot === null ? `web-${Date.now().toString(36)}` : `web-${device}-${slot}`
    const model = new Model()
    model.user = user
    model.staff = assistants.includes(user)
    model.isStaff = name => assistants.includes(name)
    model.clientId = `${user}.${name}`
    model.label = model.staff ? labelOf(name) : model.clientId
    model.#store = await Store.open(`chat-${model.clientId}`, { stores })
    await model.#load()
    const will = state => ({
      topic: model.#presenceTopic, payload: JSON.stringify({ state, at: Date.now() }), qos: 1, retain: true,
    })
    model.client = new Client({
      url, clientId: model.clientId, username: user, password, store: model.#store, keepalive,
      sessionExpiry: 7 * 86400, // what comes while the page is closed waits a week
      will: () => ({ ...will("offline"), properties: { willDelay: 10 } }), // a short break is no absence
      onstore: (m, tx) => model.#onstore(m, tx),
      onmessage: m => model.#onmessage(m),
    })
    model.client.addEventListener("progress", e => model.#onprogress(e.detail))
    await new Promise((resolve, reject) => {
      model.client.addEventListener("state", e => {
        if (e.detail.state === "online") {
          model.#say(will("online"))
          resolve()
        }
        if (e.detail.state === "stopped") reject(new Error(e.detail.reason))
        model.dispatchEvent(Object.assign(new Event("state"), { detail: e.detail }))
        if (e.detail.state === "online") model.#catchUp()
      })
      model.client.start()
      model.client.subscribe(`chat/u/${user}/in/#`, { qos: 2 }).catch(reject)
      for (const c of model.convs.values()) model.#watch(c.with)
    }).catch(err => {
      model.#store.close()
      throw err
    })
    return model
  }

  #store

  get #presenceTopic() { return `chat/${this.staff ? "staff" : "presence"}/${this.user}/${this.label}` }
  #out(kind) { return `chat/u/${this.user}/out/${this.clientId}/${kind}` }
  #changed() { this.dispatchEvent(new Event("change")) }

  async signOut() {
    await this.#say({ topic: this.#presenceTopic, payload: JSON.stringify({ state: "offline", at: Date.now() }), qos: 1, retain: true })
    await this.client.end()
    this.#store.close()
  }

  #say({ topic, payload, qos, retain }) {
    return this.client.publish(topic, payload, { qos, retain }).catch(err => console.warn("chat:", err.message))
  }

  // ---- what is here already

  async #load() {
    const all = name => new Promise((resolve, reject) => {
      const q = this.#store.db.transaction(name).objectStore(name).getAll()
      q.onsuccess = () => resolve(q.result)
      q.onerror = () => reject(q.error)
    })
    for (const m of await all("messages")) this.#of(m.conv).set(m.seq, m)
    for (const m of await all("outgoing")) this.outgoing.set(m.n, m)
    for (const m of await all("marks")) this.#marks.set(`${m.conv} ${m.who}`, { d: m.d, r: m.r })
    for (const c of await all("convs")) this.convs.set(c.conv, c)
    for (const c of await all("counters")) if (c.name === "n") this.#counter = c.value
  }

  #of(conv) {
    if (!this.#messages.has(conv)) this.#messages.set(conv, new Map())
    return this.#messages.get(conv)
  }

  /** Messages of a conversation as they are to be shown: in order, and none behind one that is missing. */
  messages(conv) {
    const known = this.#of(conv), shown = []
    if (known.size === 0) return shown
    for (let seq = Math.min(...known.keys()); known.has(seq); seq++) shown.push(known.get(seq))
    return shown
  }

  /** What was written here for a conversation and has not come back; conv is null for one that is to begin. */
  unconfirmed(conv) {
    return [...this.outgoing.values()].filter(m => (m.conv ?? this.open) === conv).sort((a, b) => a.n - b.n)
  }

  /** A user's conversation that is not closed: there is one at most. Null: there is none. */
  get open() { return this.staff ? null : [...this.convs.values()].find(c => c.state !== "closed")?.conv ?? null }

  #last(conv) { return this.messages(conv).at(-1)?.seq ?? 0 }
  mark(conv, who) { return this.#marks.get(`${conv} ${who}`) ?? { d: 0, r: 0 } }

  unread(conv) {
    const { r } = this.mark(conv, this.user)
    return this.messages(conv).filter(m => m.seq > r && m.from !== this.user).length
  }

  there(name) { return [...(this.presence.get(name) ?? new Map()).values()].some(Boolean) }

  /** "read", "delivered" or "committed": how far a message of ours has come that is in the transcript. */
  tick(message) {
    const peer = this.mark(message.conv, this.convs.get(message.conv)?.with)
    return message.seq <= peer.r ? "read" : message.seq <= peer.d ? "delivered" : "committed"
  }

  // ---- out

  /** Writes a message; conv is null where a user begins a conversation. Kept when the promise is. */
  async send(conv, text) {
    const m = { n: ++this.#counter, conv, text, at: Date.now(), step: "waiting" }
    this.outgoing.set(m.n, m)
    this.#changed()
    await this.#publish(m)
  }

  /** Ends a conversation (assistants only). */
  async close(conv) {
    await this.#publish({ n: ++this.#counter, conv, close: true, at: Date.now(), step: "waiting" })
  }

  // The message, its number and the PUBLISH are kept in one transaction: none without the others.
  #publish(m) {
    const body = { n: m.n, conv: m.conv ?? undefined, text: m.text, close: m.close, at: m.at }
    return new Promise((resolve, reject) => {
      this.client.publish(this.#out("msg"), JSON.stringify(body), {
        qos: 2, tag: m.n,
        onstore: tx => {
          if (!m.close) tx.objectStore("outgoing").put(m)
          tx.objectStore("counters").put({ name: "n", value: m.n })
          tx.addEventListener("complete", resolve)
        },
      }).catch(reject)
    })
  }

  #onprogress({ tag, step, code }) {
    const m = this.outgoing.get(tag)
    if (!m || step === "done" || step === "refused" && m.step === "committed") return
    if (step === "committed" && code === 0x10) { // there is no pipeline: nobody has it, so it is sent again
      setTimeout(() => this.#publish(m).catch(() => {}), 5000)
      return
    }
    m.step = step
    m.code = code
    this.#store.change(tx => tx.objectStore("outgoing").put(m)).catch(() => {})
    this.#changed()
  }

  typing(conv) { this.client.publish(this.#out("typing"), JSON.stringify({ conv })).catch(() => {}) }

  /** The person has seen everything that is shown of a conversation. */
  read(conv) {
    const last = this.#last(conv)
    if (this.mark(conv, this.user).r >= last) return
    this.#setMark(conv, this.user, { d: last, r: last })
    this.#tell(conv)
  }

  // Receipts are QoS 0: they are counts that only grow, so that the next one makes up for a lost one.
  #tell(conv) {
    if (this.#toMark.has(conv)) return
    this.#toMark.set(conv, setTimeout(() => {
      this.#toMark.delete(conv)
      const { d, r } = this.mark(conv, this.user)
      this.client.publish(this.#out("seen"), JSON.stringify({ conv, d, r })).catch(() => {}) // catchUp tells it again
    }, 200))
  }

  #setMark(conv, who, { d, r }) {
    const old = this.mark(conv, who), now = { d: Math.max(old.d, d), r: Math.max(old.r, r) }
    if (now.d === old.d && now.r === old.r) return
    this.#marks.set(`${conv} ${who}`, now)
    this.#store.change(tx => tx.objectStore("marks").put({ conv, who, ...now })).catch(() => {})
    this.#changed()
  }

  // ---- in

  // In the transaction in which the client takes note of the message, before it is acknowledged.
  #onstore(message, tx) {
    const kind = message.topic.split("/")[4]
    if (message.payload.length === 0) return
    const body = json(message)
    if (kind === "msg") this.#putMessage(body, tx)
    if (kind === "conv") tx.objectStore("convs").put(this.#newer(body))
  }

  #putMessage(m, tx) {
    tx.objectStore("messages").put(m)
    if (m.device === this.clientId) tx.objectStore("outgoing").delete(m.n)
  }

  // A conversation never goes back: waiting, open, closed.
  #newer(c) {
    const known = this.convs.get(c.conv)
    return known && rank[known.state] > rank[c.state] ? known : c
  }

  #onmessage(message) {
    const [, area, name, , kind] = message.topic.split("/")
    const body = message.payload.length === 0 ? null : json(message)
    if (area === "staff" || area === "presence") {
      if (!this.presence.has(name)) this.presence.set(name, new Map())
      this.presence.get(name).set(message.topic, body?.state === "online")
      return this.#changed()
    }
    if (!body) return
    switch (kind) {
      case "msg": return this.#took(body)
      case "conv":
        this.convs.set(body.conv, this.#newer(body))
        this.#watch(body.with)
        if (!this.#messages.has(body.conv)) this.#fetch(body.conv)
        return this.#changed()
      case "seen": return this.#setMark(body.conv, body.by, body)
      case "typing":
      case "notice":
        if (body.device === this.clientId) this.#refused(body)
        this.dispatchEvent(Object.assign(new Event(kind), { detail: body }))
    }
  }

  #took(m) {
    this.#of(m.conv).set(m.seq, m)
    if (m.device === this.clientId) this.outgoing.delete(m.n)
    const last = this.#last(m.conv)
    if (m.seq > last && !this.#gaps.has(m.conv)) { // one is missing: on its way by another worker, most likely
      this.#gaps.set(m.conv, setTimeout(() => {
        this.#gaps.delete(m.conv)
        if (this.#last(m.conv) < m.seq) this.#fetch(m.conv, { after: this.#last(m.conv), limit: 200 })
      }, 1000))
    }
    if (m.from !== this.user && last > this.mark(m.conv, this.user).d) {
      this.#setMark(m.conv, this.user, { d: last, r: 0 })
      this.#tell(m.conv)
    }
    this.#changed()
  }

  #refused({ n }) {
    const m = this.outgoing.get(n)
    if (!m) return
    m.step = "refused"
    this.#store.change(tx => tx.objectStore("outgoing").put(m)).catch(() => {})
  }

  #watch(name) {
    if (!name || this.#watched.has(name)) return
    this.#watched.add(name)
    this.client.subscribe(`chat/${this.isStaff(name) ? "staff" : "presence"}/${name}/+`, { qos: 1 }).catch(() => this.#watched.delete(name))
  }

  // After each connect: what QoS 0 may have lost, and what an expired session may have.
  #catchUp() {
    for (const { conv, state } of this.convs.values()) {
      if (state === "closed" && this.#messages.has(conv)) continue
      const last = this.#last(conv)
      this.#fetch(conv, last > 0 ? { after: last, limit: 200 } : {})
      if (last > 0) this.#tell(conv)
    }
  }

  /** Fetches messages before the first that is known; false: there are none. */
  async earlier(conv) {
    const first = this.messages(conv)[0]?.seq
    if (!first || first === 1) return false
    await this.#fetch(conv, { before: first })
    return this.messages(conv)[0].seq > 1
  }

  async #fetch(conv, range = {}) {
    try {
      const answer = json(await this.client.request(this.#out("history"), JSON.stringify({ conv, ...range }), {
        qos: 1, responseTopic: `chat/u/${this.user}/in/reply/${this.clientId}`,
      }))
      await this.#store.change(tx => { for (const m of answer.messages) this.#putMessage(m, tx) })
      for (const m of answer.messages) this.#took(m)
      for (const [who, [d, r]] of Object.entries(answer.marks)) this.#setMark(conv, who, { d, r })
    } catch (err) {
      console.warn("chat: history:", err.message) // asked again with the next connection
    }
  }
}
