// An MQTT 5 client for browsers, without dependencies: QoS 0, 1 and 2, sessions that outlive the
// page, reconnecting.
//
//   import { Client, Store } from "./mqtt/index.js"
//
//   const client = new Client({
//     url: "wss://chat.example/mqtt", clientId: "ann.web-1", username: "ann", password: "…",
//     sessionExpiry: 86400, store: await Store.open("ann.web-1"),
//     onmessage: m => console.log(m.topic, new TextDecoder().decode(m.payload)),
//   })
//   client.start()
//   await client.subscribe("news/#", { qos: 2 })
//   await client.publish("news/today", "geese are back", { qos: 2 })   // resolves when the broker has it
//   await client.end()
//
// Without a store the state of the session is kept in memory and ends with the page.
export { Client } from "./client.js"
export { MemoryStore, Store, claimSlot } from "./store.js"
export { ProtocolError, reasonText } from "./codec.js"
