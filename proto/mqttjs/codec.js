// MQTT 5.0 packets as bytes and as objects. Nothing here knows a connection or a clock.

export const CONNECT = 1, CONNACK = 2, PUBLISH = 3, PUBACK = 4, PUBREC = 5, PUBREL = 6, PUBCOMP = 7,
  SUBSCRIBE = 8, SUBACK = 9, UNSUBSCRIBE = 10, UNSUBACK = 11, PINGREQ = 12, PINGRESP = 13, DISCONNECT = 14

/** What the other side sent is not MQTT 5.0; code is the reason for a DISCONNECT. */
export class ProtocolError extends Error {
  constructor(message, code = 0x81) {
    super(message)
    this.name = "ProtocolError"
    this.code = code
  }
}

// Section 2.2.2.2. A name that ends with a star may come more than once and is a list.
const properties = new Map(Object.entries({
  1: ["payloadFormat", "byte"], 2: ["messageExpiry", "u32"], 3: ["contentType", "text"], 8: ["responseTopic", "text"],
  9: ["correlationData", "binary"], 11: ["subscriptionIds*", "varint"], 17: ["sessionExpiry", "u32"],
  18: ["assignedClientId", "text"], 19: ["serverKeepAlive", "u16"], 21: ["authMethod", "text"], 22: ["authData", "binary"],
  23: ["requestProblemInformation", "byte"], 24: ["willDelay", "u32"], 25: ["requestResponseInformation", "byte"],
  26: ["responseInformation", "text"], 28: ["serverReference", "text"], 31: ["reasonString", "text"],
  33: ["receiveMaximum", "u16"], 34: ["topicAliasMaximum", "u16"], 35: ["topicAlias", "u16"], 36: ["maximumQoS", "byte"],
  37: ["retainAvailable", "byte"], 38: ["userProperties*", "pair"], 39: ["maximumPacketSize", "u32"],
  40: ["wildcardAvailable", "byte"], 41: ["subscriptionIdAvailable", "byte"], 42: ["sharedAvailable", "byte"],
}).map(([id, [name, type]]) => [+id, { name: name.replace("*", ""), type, many: name.endsWith("*") }]))
const idOf = new Map([...properties].map(([id, p]) => [p.name, id]))

const reasons = {
  0x00: "success", 0x04: "disconnect with will", 0x10: "no matching subscribers", 0x11: "no subscription existed",
  0x80: "unspecified error", 0x81: "malformed packet", 0x82: "protocol error", 0x83: "implementation specific error",
  0x84: "unsupported protocol version", 0x85: "client identifier not valid", 0x86: "bad user name or password",
  0x87: "not authorized", 0x88: "server unavailable", 0x89: "server busy", 0x8a: "banned", 0x8b: "server shutting down",
  0x8c: "bad authentication method", 0x8d: "keep alive timeout", 0x8e: "session taken over", 0x8f: "topic filter invalid",
  0x90: "topic name invalid", 0x91: "packet identifier in use", 0x92: "packet identifier not found",
  0x93: "receive maximum exceeded", 0x94: "topic alias invalid", 0x95: "packet too large", 0x96: "message rate too high",
  0x97: "quota exceeded", 0x98: "administrative action", 0x99: "payload format invalid", 0x9a: "retain not supported",
  0x9b: "QoS not supported", 0x9c: "use another server", 0x9d: "server moved", 0x9e: "shared subscriptions not supported",
  0x9f: "connection rate exceeded", 0xa0: "maximum connect time", 0xa1: "subscription identifiers not supported",
  0xa2: "wildcard subscriptions not supported",
}

/** The name of a reason code, for people. */
export const reasonText = code => reasons[code] ?? `reason 0x${code.toString(16)}`

const encoder = new TextEncoder()
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/** Bytes of a payload that was given as text or as bytes. */
export const bytesOf = payload =>
  typeof payload === "string" ? encoder.encode(payload) : payload instanceof Uint8Array ? payload : new Uint8Array(payload)

class Writer {
  #bytes = []
  get length() { return this.#bytes.length }
  byte(n) { this.#bytes.push(n & 0xff) }
  u16(n) { this.#bytes.push(n >> 8 & 0xff, n & 0xff) }
  u32(n) { this.u16(n / 0x10000), this.u16(n % 0x10000) }
  varint(n) {
    do {
      const low = n % 128
      n = Math.floor(n / 128)
      this.byte(n > 0 ? low | 128 : low)
    } while (n > 0)
  }
  raw(bytes) { for (const b of bytes) this.#bytes.push(b) }
  binary(bytes) {
    if (bytes.length > 0xffff) throw new RangeError(`${bytes.length} bytes where MQTT allows 65535`)
    this.u16(bytes.length)
    this.raw(bytes)
  }
  text(s) { this.binary(encoder.encode(s)) }
  pair([name, value]) { this.text(name), this.text(value) }
  properties(values = {}) {
    const w = new Writer()
    for (const [name, value] of Object.entries(values)) {
      if (value === undefined || value === null) continue
      const id = idOf.get(name)
      if (id === undefined) throw new RangeError(`there is no property ${name}`)
      const { type, many } = properties.get(id)
      for (const v of many ? value : [value]) {
        w.varint(id)
        w[type](type === "binary" ? bytesOf(v) : v)
      }
    }
    this.varint(w.length)
    this.raw(w.#bytes)
  }
  packet(first, payload = new Uint8Array()) {
    const head = new Writer()
    head.byte(first)
    head.varint(this.length + payload.length)
    const out = new Uint8Array(head.length + this.length + payload.length)
    out.set(head.#bytes)
    out.set(this.#bytes, head.length)
    out.set(payload, head.length + this.length)
    return out
  }
}

export function encodeConnect({ clientId, username, password, keepalive, cleanStart, will, properties }) {
  const w = new Writer()
  w.text("MQTT")
  w.byte(5)
  w.byte((username !== undefined ? 0x80 : 0) | (password !== undefined ? 0x40 : 0) | (cleanStart ? 2 : 0) |
    (will ? 4 | (will.qos ?? 0) << 3 | (will.retain ? 0x20 : 0) : 0))
  w.u16(keepalive)
  w.properties(properties)
  w.text(clientId)
  if (will) {
    w.properties(will.properties)
    w.text(will.topic)
    w.binary(bytesOf(will.payload))
  }
  if (username !== undefined) w.text(username)
  if (password !== undefined) w.binary(bytesOf(password))
  return w.packet(CONNECT << 4)
}

export function encodePublish({ topic, payload, qos, retain, dup, id, properties }) {
  const w = new Writer()
  w.text(topic)
  if (qos > 0) w.u16(id)
  w.properties(properties)
  return w.packet(PUBLISH << 4 | (dup ? 8 : 0) | qos << 1 | (retain ? 1 : 0), payload)
}

/** PUBACK, PUBREC, PUBREL and PUBCOMP. */
export function encodeAck(type, id, code = 0) {
  const w = new Writer()
  w.u16(id)
  if (code !== 0) w.byte(code)
  return w.packet(type << 4 | (type === PUBREL ? 2 : 0))
}

/** filters: [{ filter, qos, noLocal, retainAsPublished, retainHandling }] */
export function encodeSubscribe(id, filters) {
  const w = new Writer()
  w.u16(id)
  w.properties()
  for (const f of filters) {
    w.text(f.filter)
    w.byte((f.qos ?? 0) | (f.noLocal ? 4 : 0) | (f.retainAsPublished ? 8 : 0) | (f.retainHandling ?? 0) << 4)
  }
  return w.packet(SUBSCRIBE << 4 | 2)
}

export function encodeUnsubscribe(id, filters) {
  const w = new Writer()
  w.u16(id)
  w.properties()
  for (const f of filters) w.text(f)
  return w.packet(UNSUBSCRIBE << 4 | 2)
}

export const encodePing = () => new Writer().packet(PINGREQ << 4)

export function encodeDisconnect(code = 0, properties) {
  const w = new Writer()
  if (code !== 0 || properties) {
    w.byte(code)
    if (properties) w.properties(properties)
  }
  return w.packet(DISCONNECT << 4)
}

class Reader {
  constructor(bytes) {
    this.bytes = bytes
    this.at = 0
  }
  get left() { return this.bytes.length - this.at }
  raw(n) {
    if (this.left < n) throw new ProtocolError("a packet ends too early")
    this.at += n
    return this.bytes.subarray(this.at - n, this.at)
  }
  byte() { return this.raw(1)[0] }
  u16() {
    const [a, b] = this.raw(2)
    return a << 8 | b
  }
  u32() { return this.u16() * 0x10000 + this.u16() }
  varint() {
    for (let n = 0, scale = 1, i = 0; i < 4; i++, scale *= 128) {
      const b = this.byte()
      n += (b & 127) * scale
      if (b < 128) return n
    }
    throw new ProtocolError("a number of more than four bytes")
  }
  binary() { return this.raw(this.u16()).slice() }
  text() {
    try {
      return decoder.decode(this.raw(this.u16()))
    } catch (err) {
      throw err instanceof ProtocolError ? err : new ProtocolError("text that is not UTF-8")
    }
  }
  pair() { return [this.text(), this.text()] }
  properties() {
    const length = this.varint()
    const r = new Reader(this.raw(length))
    const out = {}
    while (r.left > 0) {
      const p = properties.get(r.varint())
      if (!p) throw new ProtocolError("an unknown property")
      const value = r[p.type]()
      if (p.many) (out[p.name] ??= []).push(value)
      else if (p.name in out) throw new ProtocolError(`${p.name} twice`, 0x82)
      else out[p.name] = value
    }
    return out
  }
}

// The flags in the first byte that each packet of a server must have; PUBLISH has its own.
const flags = { [PUBREL]: 2 }

function decode(first, body) {
  const type = first >> 4, r = new Reader(body)
  const p = { type }
  if (type !== PUBLISH && (first & 15) !== (flags[type] ?? 0)) throw new ProtocolError("wrong flags in a packet's first byte")
  switch (type) {
    case CONNACK:
      p.sessionPresent = (r.byte() & 1) === 1
      p.code = r.byte()
      p.properties = r.properties()
      break
    case PUBLISH:
      p.dup = (first & 8) !== 0
      p.qos = first >> 1 & 3
      p.retain = (first & 1) !== 0
      if (p.qos === 3) throw new ProtocolError("QoS 3")
      p.topic = r.text()
      p.id = p.qos > 0 ? r.u16() : 0
      if (p.qos > 0 && p.id === 0) throw new ProtocolError("packet identifier 0", 0x82)
      p.properties = r.properties()
      p.payload = r.raw(r.left).slice()
      break
    case PUBACK: case PUBREC: case PUBREL: case PUBCOMP:
      p.id = r.u16()
      p.code = r.left > 0 ? r.byte() : 0
      p.properties = r.left > 0 ? r.properties() : {}
      break
    case SUBACK: case UNSUBACK:
      p.id = r.u16()
      p.properties = r.properties()
      p.codes = [...r.raw(r.left)]
      break
    case PINGRESP:
      break
    case DISCONNECT:
      p.code = r.left > 0 ? r.byte() : 0
      p.properties = r.left > 0 ? r.properties() : {}
      break
    default:
      throw new ProtocolError(`a server does not send packets of type ${type}`, 0x82)
  }
  if (r.left > 0) throw new ProtocolError("a packet is too long for what is in it")
  return p
}

/** Takes bytes as they come and gives whole packets: packets may share a frame, and frames a packet. */
export class Parser {
  #rest = new Uint8Array()
  /** max: bytes of the largest packet that is taken. */
  constructor(max = Infinity) { this.max = max }

  /** The packets that these bytes complete. Throws ProtocolError. */
  push(bytes) {
    const all = new Uint8Array(this.#rest.length + bytes.length)
    all.set(this.#rest)
    all.set(bytes, this.#rest.length)
    const packets = []
    let at = 0
    for (;;) {
      let length = 0, n = 1, more = true
      for (let scale = 1; more && at + n < all.length; n++, scale *= 128) {
        if (n > 4) throw new ProtocolError("a packet's length of more than four bytes")
        length += (all[at + n] & 127) * scale
        more = all[at + n] > 127
      }
      if (more || at + n + length > all.length) {
        if (!more && n + length > this.max) throw new ProtocolError("a packet that is too large", 0x95)
        break
      }
      if (n + length > this.max) throw new ProtocolError("a packet that is too large", 0x95)
      packets.push(decode(all[at], all.subarray(at + n, at + n + length)))
      at += n + length
    }
    this.#rest = all.slice(at)
    return packets
  }
}
