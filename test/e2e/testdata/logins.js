// Logs in with mqtt.js as a list of attempts says, which is JSON on standard input, and prints a line for each:
// the code in the CONNACK, or -1 when none came.
'use strict'
const fs = require('fs')
const net = require('net')
const mqtt = require('mqtt')

process.on('unhandledRejection', e => { console.error(e); process.exit(1) })

function options (a) {
  const [host, port] = a.scheme === 'unix' ? [] : a.address.split(':')
  const o = {
    host, hostname: host, port: Number(port), clientId: a.id, protocolVersion: a.version, reconnectPeriod: 0, connectTimeout: 20000,
    protocol: { tcp: 'mqtt', tls: 'mqtts', psk: 'mqtts', unix: 'mqtt' }[a.scheme] || a.scheme
  }
  if (a.user) Object.assign(o, { username: a.user, password: a.password })
  if (a.ca) o.ca = fs.readFileSync(a.ca)
  if (a.cert) Object.assign(o, { cert: fs.readFileSync(a.cert), key: fs.readFileSync(a.key) })
  if (a.scheme === 'psk') { // Node.js knows pre-shared keys in TLS 1.2 alone
    Object.assign(o, { ciphers: 'PSK', maxVersion: 'TLSv1.2', checkServerIdentity: () => undefined })
    o.pskCallback = () => ({ psk: Buffer.from(a.psk, 'hex'), identity: a.identity })
  }
  if (a.scheme === 'wss') o.path = '/mqtt'
  return o
}

const login = a => new Promise(resolve => {
  const o = options(a)
  const c = a.scheme === 'unix' ? new mqtt.Client(() => net.createConnection(a.address), o) : mqtt.connect(o)
  const end = code => { resolve(code); c.end(true) }
  c.once('connect', () => end(0))
  c.on('error', e => end(typeof e.code === 'number' ? e.code : -1))
  c.once('close', () => end(-1))
})

async function main () {
  for (const a of JSON.parse(fs.readFileSync(0))) console.log(await login(a))
}
main()
