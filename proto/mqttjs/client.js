// One MQTT 5 client: the connection, its reconnects, and the delivery state of the session.
//
// The rule of the whole file is "keep it before you speak": PUBACK and PUBREC leave only when the message
// is in the store, PUBREL only when PUBREC is, and a PUBLISH only when it would be found again
// after the page has ended. So a message of QoS 2 passes once, whatever ends in between.

import * as mqtt from "./codec.js"
import { Connection } from "./connection.js"
import { MemoryStore } from "./store.js"

// With these a second try would fare no better, or would fight with another page of ours.
const final = new Set([0x81, 0x82, 0x84, 0x85, 0x86, 0x87, 0x8a, 0x8c, 0x8e, 0x95, 0x9b])

const defaults = {
  keepalive: 60, // s
  sessionExpiry: 0, // s that the session outlives a connection
  receiveMaximum: 64, // messages of QoS 1 and 2 that the server may have on the way to us
  maxInflight: 64, // and we to the server, which may want fewer
  maximumPacketSize: 1 << 20,
  connectTimeout: 10_000, // ms until CONNACK
  answerTimeout: 10_000, // ms until PINGRESP; then the connection counts as dead
  minBackoff: 250, // ms; doubled with each failure up to maxBackoff, of which a random part is waited
  maxBackoff: 30_000,
}

/**
 * Options beside the defaults above: url (or a function that gives it), clientId, username, password,
 * will { topic, payload, qos, retain, properties }, which may be a function too, store, and
 *
 *   onmessage(message)      a message came in: { topic, payload, qos, retain, dup, properties }
 *   onstore(message, tx)    the same at QoS 1 and 2, before onmessage and before it is acknowledged, in the
 *                           transaction in which the store takes note of it (tx is null in memory)
 *
 * Events (addEventListener), each with a detail:
 *   state      { state: "offline" | "connecting" | "online" | "stopped", code, reason, retryIn }
 *   session    { present } after each CONNACK, before anything is sent again
 *   progress   { tag, step, code } of messages that were published with a tag: "sent" (it left this page),
 *              "committed" (PUBACK or PUBREC: the broker has it), "done", "refused" (code says why)
 */
export class Client extends EventTarget {
  #options
  #store
  #state = "offline"
  #connection = null // the one that may speak; null: none
  #retry = { timer: 0, failures: 0 }
  #loaded = null // promise of #load
  #known = false // the server may know our session
  // What is on its way out, in order. The record is what the store keeps: { order, id, phase: "queued" | "sent" |
  // "released", topic, payload, qos, retain, properties, tag }; kept says that it does. counted is the connection
  // whose quota it uses, sent the one on which it left, tried that it left at all.
  #out = []
  #taken = new Set() // packet ids in use
  #lastId = 0
  #ids = new Set() // packet ids of QoS 2 messages that came and are not released
  #filters = new Map() // wanted subscriptions by filter
  #unwanted = new Set() // filters that the server may still have
  #asked = new Map() // packet id -> { filters } of a SUBSCRIBE, { unwanted } of an UNSUBSCRIBE
  #requests = new Map() // correlation -> { resolve, reject, timer }
  #waiting = new Map() // order -> { resolve, reject } of publish()
  #wake = () => this.#hurry()
  // A page that is left may be kept for the way back, its connection with it: others would take it for present.
  #leave = () => this.#connection?.close(0, "the page was left")

  constructor(options) {
    super()
    this.#options = { ...defaults, ...options }
    this.#store = options.store ?? new MemoryStore()
    this.onmessage = options.onmessage
  }

  get state() { return this.#state }
  /** Messages that the broker has not confirmed yet. */
  get pending() { return this.#out.length }
  get clientId() { return this.#options.clientId }

  /** Connects, and goes on connecting until end() is called or the server refuses for good. */
  start() {
    if (this.#state === "connecting" || this.#state === "online") return
    this.#setState("offline")
    this.#listen("addEventListener")
    this.#connect()
  }

  /**
   * Says goodbye and stays away. sessionExpiry, when given, replaces how long the session is kept (0: it
   * ends); with publishWill the server sends the will.
   */
  async end({ sessionExpiry, publishWill = false } = {}) {
    const c = this.#connection
    this.#stop()
    if (c?.acknowledged) {
      c.send(mqtt.encodeDisconnect(publishWill ? 4 : 0, sessionExpiry === undefined ? undefined : { sessionExpiry }))
      if (sessionExpiry === 0) await this.#store.setKnown(false)
    }
    c?.close()
    this.#setState("stopped")
  }

  /**
   * Subscribes now or with the next connection, and again whenever the server has lost the session. Resolves
   * with the granted QoS; rejects when the server refuses. options: qos, noLocal, retainAsPublished, retainHandling.
   */
  subscribe(filter, options = {}) {
    const f = { qos: 0, ...options, filter }
    this.#filters.set(filter, f)
    this.#unwanted.delete(filter)
    return new Promise((resolve, reject) => {
      f.resolve = resolve
      f.reject = reject
      f.fresh = true
      if (this.#connection?.acknowledged) this.#subscribe([f])
    })
  }

  /** Now or with the next connection. */
  unsubscribe(...filters) {
    for (const f of filters) {
      this.#filters.delete(f)
      this.#unwanted.add(f)
    }
    if (this.#connection?.acknowledged) this.#unsubscribe(filters)
  }

  /**
   * Publishes. Resolves with the reason code when the broker has confirmed (QoS 1: PUBACK, QoS 2: PUBREC), which
   * may be in the next hour; at QoS 0 when it was handed to the socket. Rejects when it is refused, or at QoS 0
   * without a connection. options: qos, retain, properties, tag (anything that can be stored; progress events
   * carry it, also after the page was loaded again), onstore(tx) (as in Store.put).
   */
  async publish(topic, payload, { qos = 0, retain = false, properties, tag, onstore } = {}) {
    const record = { id: 0, phase: "queued", topic, payload: mqtt.bytesOf(payload), qos, retain, properties, tag }
    if (qos === 0) {
      const c = this.#connection
      if (!c?.acknowledged) throw new Error("not connected")
      c.send(mqtt.encodePublish(record))
      return 0
    }
    mqtt.encodePublish({ ...record, id: 1 }) // what can't be encoded fails here, not in the middle of a session
    await this.#load()
    const c = this.#connection
    const entry = { record, kept: false, counted: null, sent: null, tried: false }
    if (c?.acknowledged && c.quota > 0 && !this.#out.some(e => e.record.phase === "queued")) this.#number(entry, c)
    const kept = this.#store.put(record, onstore) // gives it an order, at once
    this.#out.push(entry)
    const answer = new Promise((resolve, reject) => this.#waiting.set(record.order, { resolve, reject }))
    answer.catch(() => {}) // who listens hears of it; nobody has to
    try {
      await kept
    } catch (err) {
      this.#waiting.delete(record.order)
      this.#forget(entry)
      throw err
    }
    entry.kept = true
    this.#flush()
    return answer
  }

  /**
   * Asks over MQTT: publishes with a response topic, to which the caller must be subscribed, and resolves with
   * the first message that comes back with the same correlation data.
   */
  request(topic, payload, { responseTopic, timeout = 10_000, properties, ...options }) {
    const correlation = crypto.getRandomValues(new Uint8Array(8))
    const key = String(correlation)
    return new Promise((resolve, reject) => {
      const fail = err => {
        if (!this.#requests.delete(key)) return
        clearTimeout(timer)
        reject(err)
      }
      const timer = setTimeout(() => fail(new Error("no answer in time")), timeout)
      this.#requests.set(key, { resolve, timer })
      const asking = { messageExpiry: Math.ceil(timeout / 1000), ...properties, responseTopic, correlationData: correlation }
      this.publish(topic, payload, { ...options, properties: asking }).catch(fail)
    })
  }

  // ---- connecting

  #setState(state, detail = {}) {
    this.#state = state
    this.#emit("state", { state, ...detail })
  }

  #emit(type, detail) { this.dispatchEvent(Object.assign(new Event(type), { detail })) }

  #listen(how) {
    for (const name of ["online", "pageshow"]) globalThis[how]?.(name, this.#wake)
    globalThis[how]?.("pagehide", this.#leave)
    globalThis.document?.[how]("visibilitychange", this.#wake)
  }

  #load() {
    return this.#loaded ??= this.#store.load().then(({ known, out, ids }) => {
      this.#known = known
      this.#ids = new Set(ids)
      const entries = out.map(record => ({ record, kept: true, counted: null, sent: null, tried: record.phase === "sent" }))
      this.#out = [...entries, ...this.#out]
      for (const { id } of out) if (id) this.#taken.add(id)
    }).catch(err => { // the next connection tries again
      this.#loaded = null
      throw err
    })
  }

  #stop() {
    clearTimeout(this.#retry.timer)
    this.#listen("removeEventListener")
    this.#connection = null
    this.#dropAsked()
  }

  // The network is back, or somebody looks at the page: no time for backoff or a dead connection.
  #hurry() {
    if (globalThis.document?.visibilityState === "hidden") return
    if (this.#state === "offline") this.#connect()
    else if (this.#connection?.acknowledged) this.#connection.ping()
  }

  async #connect() {
    clearTimeout(this.#retry.timer)
    this.#setState("connecting")
    const o = this.#options
    const value = v => typeof v === "function" ? v() : v
    let c
    try {
      await this.#load()
      if (this.#state !== "connecting" || this.#connection) return
      c = new Connection(value(o.url), o, {
        open: () => c.send(mqtt.encodeConnect({
          clientId: o.clientId, username: o.username, password: o.password, keepalive: o.keepalive,
          cleanStart: !this.#known, will: value(o.will),
          properties: {
            sessionExpiry: o.sessionExpiry || undefined, receiveMaximum: o.receiveMaximum, maximumPacketSize: o.maximumPacketSize,
          },
        })),
        packet: p => { if (this.#connection === c) this.#packet(c, p) },
        closed: (code, reason) => { if (this.#connection === c) this.#closed(code, reason) },
      })
      this.#connection = c
    } catch (err) {
      this.#closed(0, err.message)
    }
  }

  #closed(code, reason) {
    const was = this.#connection
    this.#connection = null
    this.#dropAsked()
    if (final.has(code)) {
      this.#stop()
      this.#setState("stopped", { code, reason })
      return
    }
    // A connection that lasted starts the count anew: one that breaks at once does not.
    if (was?.acknowledged && Date.now() - was.acknowledged > 5_000) this.#retry.failures = 0
    const { minBackoff, maxBackoff } = this.#options
    const most = Math.min(maxBackoff, minBackoff * 2 ** this.#retry.failures++)
    const retryIn = most / 2 + Math.random() * most / 2
    this.#retry.timer = setTimeout(() => this.#connect(), retryIn)
    this.#setState("offline", { code, reason, retryIn })
  }

  #dropAsked() {
    for (const id of this.#asked.keys()) this.#taken.delete(id) // they are asked for again with the next connection
    this.#asked.clear()
  }

  // ---- packets

  #packet(c, p) {
    if (!c.acknowledged && p.type !== mqtt.CONNACK) throw new mqtt.ProtocolError("a packet before CONNACK", 0x82)
    switch (p.type) {
      case mqtt.CONNACK: return this.#connack(c, p)
      case mqtt.PUBLISH: return this.#publish(c, p)
      case mqtt.PUBREL: return this.#pubrel(c, p)
      case mqtt.PUBACK: case mqtt.PUBREC: case mqtt.PUBCOMP: return this.#acknowledged(c, p)
      case mqtt.SUBACK: case mqtt.UNSUBACK: return this.#answered(p)
    }
  }

  #connack(c, p) {
    if (c.acknowledged) throw new mqtt.ProtocolError("a second CONNACK", 0x82)
    if (p.code >= 0x80) {
      c.close(p.code, mqtt.reasonText(p.code))
      return
    }
    c.acknowledged = Date.now()
    if (p.properties.assignedClientId) this.#options.clientId = p.properties.assignedClientId
    c.largest = p.properties.maximumPacketSize ?? Infinity
    c.quota = Math.min(p.properties.receiveMaximum ?? 65535, this.#options.maxInflight)
    c.keepalive(p.properties.serverKeepAlive ?? this.#options.keepalive)
    if (!this.#known && this.#options.sessionExpiry > 0) {
      this.#known = true
      this.#guard(c, this.#store.setKnown(true))
    }
    if (!p.sessionPresent) this.#lostSession(c)
    this.#emit("session", { present: p.sessionPresent })
    this.#setState("online")
    const wanted = [...this.#filters.values()].filter(f => f.fresh || !p.sessionPresent)
    if (wanted.length > 0) this.#subscribe(wanted)
    if (p.sessionPresent && this.#unwanted.size > 0) this.#unsubscribe([...this.#unwanted])
    for (const { record, kept } of this.#out) {
      if (record.phase === "released" && kept) c.send(mqtt.encodeAck(mqtt.PUBREL, record.id))
    }
    this.#flush()
  }

  // The server has no session: what it had taken (PUBREC) is done, what it may not have taken is sent as new.
  #lostSession(c) {
    this.#ids.clear()
    this.#guard(c, this.#store.dropIds())
    this.#unwanted.clear()
    for (const entry of [...this.#out]) {
      const { record } = entry
      if (record.phase === "released") this.#finish(entry, 0)
      else if (record.id) {
        this.#taken.delete(record.id)
        record.id = 0
        record.phase = "queued"
        entry.tried = false
      }
    }
  }

  #publish(c, p) {
    if (p.qos === 0) return this.#deliver(p)
    if (p.qos === 2 && this.#ids.has(p.id)) { // a repeat: say it again once the first is kept
      this.#guard(c, this.#store.receive(p.id, p, null), () => c.send(mqtt.encodeAck(mqtt.PUBREC, p.id)))
      return
    }
    if (p.qos === 2) this.#ids.add(p.id)
    const kept = this.#store.receive(p.qos === 2 ? p.id : 0, p, tx => this.#options.onstore?.(p, tx))
    // Also when the connection has ended meanwhile. What could not be kept is not known, and comes again.
    kept.then(() => this.#deliver(p), () => this.#ids.delete(p.id))
    this.#guard(c, kept, () => c.send(mqtt.encodeAck(p.qos === 2 ? mqtt.PUBREC : mqtt.PUBACK, p.id)))
  }

  #deliver(p) {
    const { correlationData } = p.properties
    const asked = correlationData && this.#requests.get(String(correlationData))
    if (asked) {
      this.#requests.delete(String(correlationData))
      clearTimeout(asked.timer)
      asked.resolve(p)
      return
    }
    try {
      this.onmessage?.(p)
    } catch (err) {
      console.error("mqtt: onmessage failed", err) // the application's own fault must not stop the session
    }
  }

  #pubrel(c, p) {
    const known = this.#ids.delete(p.id)
    this.#guard(c, this.#store.release(p.id), () => c.send(mqtt.encodeAck(mqtt.PUBCOMP, p.id, known ? 0 : 0x92)))
  }

  #acknowledged(c, p) {
    const entry = this.#out.find(e => e.record.id === p.id && e.record.phase !== "queued")
    if (!entry) {
      if (p.type === mqtt.PUBREC) c.send(mqtt.encodeAck(mqtt.PUBREL, p.id, 0x92))
      return
    }
    const { record } = entry
    if (p.type === mqtt.PUBREC && record.qos === 2 && p.code < 0x80) {
      if (record.phase === "sent") this.#progress(record, "committed", p.code)
      record.phase = "released"
      record.payload = null // the broker has it
      entry.kept = false
      this.#keep(entry, () => {
        const now = this.#connection
        if (now?.acknowledged && this.#out.includes(entry)) now.send(mqtt.encodeAck(mqtt.PUBREL, record.id))
      })
      return
    }
    if ((p.type === mqtt.PUBACK) !== (record.qos === 1)) throw new mqtt.ProtocolError("an answer of another QoS", 0x82)
    if (p.type === mqtt.PUBCOMP && record.phase !== "released") throw new mqtt.ProtocolError("PUBCOMP before PUBREC", 0x82)
    if (entry.counted === c) c.quota++
    this.#finish(entry, p.type === mqtt.PUBCOMP ? 0 : p.code)
    this.#flush()
  }

  #answered(p) {
    const a = this.#asked.get(p.id)
    if (!a) return
    this.#asked.delete(p.id)
    this.#taken.delete(p.id)
    for (const f of a.unwanted ?? []) this.#unwanted.delete(f)
    a.filters?.forEach((f, i) => {
      const code = p.codes[i]
      if (code < 0x80) f.resolve?.(code)
      else {
        if (this.#filters.get(f.filter) === f) this.#filters.delete(f.filter)
        f.reject?.(Object.assign(new Error(`${f.filter}: ${mqtt.reasonText(code)}`), { code }))
      }
      f.fresh = false
    })
  }

  #subscribe(filters) {
    const id = this.#takeId()
    this.#asked.set(id, { filters })
    this.#connection.send(mqtt.encodeSubscribe(id, filters))
  }

  #unsubscribe(filters) {
    const id = this.#takeId()
    this.#asked.set(id, { unwanted: filters })
    this.#connection.send(mqtt.encodeUnsubscribe(id, filters))
  }

  // ---- messages on their way out

  #takeId() {
    do this.#lastId = this.#lastId % 65535 + 1
    while (this.#taken.has(this.#lastId))
    this.#taken.add(this.#lastId)
    return this.#lastId
  }

  #number(entry, c) {
    entry.record.id = this.#takeId()
    entry.record.phase = "sent"
    entry.counted = c
    c.quota--
  }

  // Keeps a changed record and goes on afterwards, whichever connection there is by then.
  #keep(entry, then) {
    this.#store.put(entry.record).then(() => {
      entry.kept = true
      then()
    }, err => this.#broken(err))
  }

  // Sends what may be sent, in order.
  #flush() {
    const c = this.#connection
    if (!c?.acknowledged) return
    for (const entry of [...this.#out]) {
      const { record } = entry
      if (record.phase === "released" || entry.sent === c) continue
      if (!entry.kept) break // its turn comes when it is
      if (entry.counted !== c) {
        if (c.quota <= 0) break
        if (record.phase === "queued") {
          this.#number(entry, c)
          entry.kept = false
          this.#keep(entry, () => this.#flush())
          break
        }
        entry.counted = c
        c.quota--
      }
      const packet = mqtt.encodePublish({ ...record, dup: entry.tried })
      if (packet.length > c.largest) {
        c.quota++
        this.#finish(entry, 0x95)
        continue
      }
      c.send(packet)
      entry.sent = c
      if (!entry.tried) this.#progress(record, "sent", 0)
      entry.tried = true
    }
  }

  #forget(entry) {
    this.#out = this.#out.filter(e => e !== entry)
    if (entry.record.id) this.#taken.delete(entry.record.id)
  }

  #finish(entry, code) {
    const { record } = entry
    if (record.phase !== "released") this.#progress(record, code < 0x80 ? "committed" : "refused", code)
    if (code < 0x80) this.#progress(record, "done", code)
    this.#forget(entry)
    this.#store.remove(record.order).catch(() => {}) // it would be sent again, which the protocol bears
  }

  #progress(r, step, code) {
    const w = this.#waiting.get(r.order)
    if (w && step !== "sent") {
      this.#waiting.delete(r.order)
      if (code < 0x80) w.resolve(code)
      else w.reject(Object.assign(new Error(`${r.topic}: ${mqtt.reasonText(code)}`), { code }))
    }
    if (r.tag !== undefined) this.#emit("progress", { tag: r.tag, step, code })
  }

  // What follows a change of the store happens on the connection that it was for, or not at all.
  #guard(c, kept, then = () => {}) {
    kept.then(() => { if (this.#connection === c) then() }, err => this.#broken(err))
  }

  // A store that fails ends the connection: nothing may be confirmed that is not kept.
  #broken(err) {
    console.error("mqtt: the session's store failed", err)
    this.#connection?.close(0x83, `the session's store failed: ${err.message}`)
  }
}
