// One WebSocket with its time limits: bytes below, packets above.

import * as mqtt from "./codec.js"

/**
 * Opens a WebSocket at once. open() is called when it stands, packet(p) for each packet but PINGRESP and
 * DISCONNECT, and closed(code, reason) once, at its end; code 0 says that the server gave none.
 */
export class Connection {
  acknowledged = 0 // when CONNACK came
  quota = 0 // messages of QoS 1 and 2 that may still be sent
  largest = Infinity // bytes of the largest packet that the server takes
  #socket
  #answerTimeout
  #limit // until CONNACK, and after a PINGREQ
  #pinger
  #lastSent = 0
  #ended = false
  #closed

  constructor(url, { connectTimeout, answerTimeout, maximumPacketSize }, { open, packet, closed }) {
    this.#closed = closed
    this.#answerTimeout = answerTimeout
    const parser = new mqtt.Parser(maximumPacketSize)
    this.#socket = new WebSocket(url, ["mqtt"])
    this.#socket.binaryType = "arraybuffer"
    this.#limit = setTimeout(() => this.close(0, "no answer in time"), connectTimeout)
    this.#socket.onopen = open
    this.#socket.onclose = () => this.close(0, "connection lost")
    this.#socket.onmessage = ({ data }) => {
      try {
        if (typeof data === "string") throw new mqtt.ProtocolError("a text frame")
        for (const p of parser.push(new Uint8Array(data))) {
          if (this.#ended) return
          clearTimeout(this.#limit)
          this.#limit = undefined
          if (p.type === mqtt.DISCONNECT) this.close(p.code, p.properties.reasonString ?? mqtt.reasonText(p.code))
          else if (p.type !== mqtt.PINGRESP) packet(p)
        }
      } catch (err) {
        if (!(err instanceof mqtt.ProtocolError)) throw err
        if (this.acknowledged) this.send(mqtt.encodeDisconnect(err.code))
        this.close(err.code, `the server sent ${err.message}`)
      }
    }
  }

  send(bytes) {
    if (this.#ended || this.#socket.readyState !== WebSocket.OPEN) return
    this.#lastSent = Date.now()
    this.#socket.send(bytes)
  }

  /** Sends PINGREQ whenever nothing else was sent for so many seconds. */
  keepalive(seconds) {
    if (seconds === 0) return
    const wait = () => {
      const left = this.#lastSent + seconds * 1000 - Date.now()
      if (left <= 0) this.ping()
      this.#pinger = setTimeout(wait, left > 0 ? left : seconds * 1000)
    }
    wait()
  }

  /** Asks whether the connection is alive, and closes it when there is no answer. */
  ping() {
    if (this.#limit !== undefined) return
    this.send(mqtt.encodePing())
    this.#limit = setTimeout(() => this.close(0, "no answer to PINGREQ"), this.#answerTimeout)
  }

  close(code = 0, reason = "") {
    if (this.#ended) return
    this.#ended = true
    clearTimeout(this.#limit)
    clearTimeout(this.#pinger)
    this.#socket.close()
    this.#closed(code, reason)
  }
}
