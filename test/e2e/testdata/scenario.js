// One scenario with mqtt.js: VERSION (4 or 5), TRANSPORT (mqtt or ws), PORT of one node, PORT of another.
// Prints a line for each part that went well; ends with 1 at the first that does not.
'use strict'
const mqtt = require('mqtt')
const [version, transport, here, there] = [Number(process.argv[2]), process.argv[3], process.argv[4], process.argv[5]]
const base = `js${version}${transport}${here === there ? 'one' : 'two'}`
const five = version === 5

const timer = setTimeout(() => { console.log('too slow'); process.exit(1) }, 60000)
process.on('unhandledRejection', e => { console.log('failed: ' + (e && e.stack || e)); process.exit(1) })
const want = (what, is) => { if (!is) throw new Error(what) }
const done = part => console.log('ok ' + part)

// open connects a client that keeps what it gets, by topic.
function open (port, id, options = {}) {
  return new Promise((resolve, reject) => {
    if (five && options.clean === false) options.properties = { sessionExpiryInterval: 600 }
    const c = mqtt.connect(Object.assign({
      protocol: transport, host: '127.0.0.1', port, path: '/mqtt', clientId: base + id, protocolVersion: version, reconnectPeriod: 0, keepalive: 30
    }, options))
    c.got = []
    c.on('message', (topic, payload, packet) => c.got.push({ topic, payload: payload.toString(), packet }))
    c.once('connect', ack => { c.present = ack.sessionPresent; resolve(c) })
    c.once('error', reject)
  })
}
const subscribe = (c, filter, qos, more = {}) => new Promise((resolve, reject) =>
  c.subscribe(filter, Object.assign({ qos }, more), (e, granted) => e ? reject(e) : resolve(granted)))
const publish = (c, topic, payload, options) => new Promise((resolve, reject) =>
  c.publish(topic, payload, options, e => e ? reject(e) : resolve()))
const leave = c => new Promise(resolve => c.end(false, {}, resolve))
const cut = c => new Promise(resolve => { c.once('close', resolve); c.stream.destroy() })
async function until (what, is) {
  for (let i = 0; i < 2000 && !is(); i++) await new Promise(resolve => setTimeout(resolve, 10))
  want(what, is())
}
const payloads = (c, topic) => c.got.filter(m => m.topic === topic).map(m => m.payload)

async function main () {
  const pub = await open(there, 'pub')
  const sub = await open(here, 'sub', { clean: false })
  want('a new session is present', !sub.present)
  for (const qos of [0, 1, 2]) {
    const topic = `${base}/qos${qos}`
    const granted = await subscribe(sub, topic, qos)
    want('granted ' + JSON.stringify(granted), granted[0].qos === qos)
    for (let i = 0; i < 20; i++) await publish(pub, topic, String(i), { qos })
    await until('all at QoS ' + qos, () => payloads(sub, topic).length >= 20)
    want('order at QoS ' + qos, payloads(sub, topic).join() === [...Array(20).keys()].join())
  }
  done('qos')

  await publish(pub, base + '/kept', 'kept', { qos: 1, retain: true })
  await subscribe(sub, base + '/kept', 1)
  await until('retained', () => payloads(sub, base + '/kept').length === 1)
  want('its flag', sub.got.find(m => m.topic === base + '/kept').packet.retain)
  await publish(pub, base + '/kept', '', { qos: 1, retain: true })
  done('retained')

  await subscribe(sub, base + '/will', 1)
  const dying = await open(there, 'dying', { will: { topic: base + '/will', payload: 'gone', qos: 1, retain: false } })
  await cut(dying)
  await until('the will', () => payloads(sub, base + '/will').join() === 'gone')
  const leaving = await open(there, 'leaving', { will: { topic: base + '/will', payload: 'wrong', qos: 1, retain: false } })
  await leave(leaving)
  done('will')

  const members = [await open(here, 'm1'), await open(there, 'm2')]
  for (const m of members) await subscribe(m, `$share/g/${base}/shared`, 1)
  for (let i = 0; i < 20; i++) await publish(pub, base + '/shared', String(i), { qos: 1 })
  await until('shared', () => members.reduce((n, m) => n + m.got.length, 0) >= 20)
  want('each once', members.flatMap(m => m.got.map(g => g.payload)).sort().join() === [...Array(20).keys()].map(String).sort().join())
  want('both members', members.every(m => m.got.length > 0))
  await Promise.all(members.map(leave))
  done('shared')

  if (five) {
    await subscribe(sub, base + '/expiry', 1)
    await publish(pub, base + '/expiry', 'in time', { qos: 1, properties: { messageExpiryInterval: 60 } })
    await until('expiry', () => payloads(sub, base + '/expiry').length === 1)
    const left = sub.got.find(m => m.topic === base + '/expiry').packet.properties.messageExpiryInterval
    want('what is left of it: ' + left, left > 30 && left <= 60)
    done('expiry')

    const service = await open(here, 'service')
    service.on('message', (topic, payload, packet) => service.publish(packet.properties.responseTopic, payload.toString().toUpperCase(), {
      qos: 1, properties: { correlationData: packet.properties.correlationData }
    }))
    await subscribe(service, base + '/request', 1)
    await subscribe(pub, base + '/response', 1)
    await publish(pub, base + '/request', 'hello', { qos: 1, properties: { responseTopic: base + '/response', correlationData: Buffer.from('42') } })
    await until('the response', () => payloads(pub, base + '/response').join() === 'HELLO')
    want('its correlation', pub.got[0].packet.properties.correlationData.toString() === '42')
    await leave(service)
    done('request and response')
  }

  await cut(sub)
  for (let i = 20; i < 30; i++) await publish(pub, base + '/qos2', String(i), { qos: 2 })
  if (five) await publish(pub, base + '/expiry', 'too late', { qos: 1, properties: { messageExpiryInterval: 1 } })
  if (five) await new Promise(resolve => setTimeout(resolve, 2500))
  const again = await open(there, 'sub', { clean: false })
  want('the session is gone', again.present)
  await until('what was queued', () => payloads(again, base + '/qos2').length >= 10)
  want('it once, in order', payloads(again, base + '/qos2').join() === [...Array(10).keys()].map(i => i + 20).join())
  want('what has expired', payloads(again, base + '/expiry').length === 0)
  want('one will', payloads(sub, base + '/will').join() === 'gone' && payloads(again, base + '/will').length === 0)
  await leave(again)
  await leave(await open(there, 'sub', { clean: true }))
  await leave(pub)
  done('session')
  clearTimeout(timer)
}
main()
