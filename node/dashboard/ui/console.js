// A publish and subscribe console over WebSocket: a client like any other, with its own user and rights.
import { Client } from "./mqtt/index.js"
import { ask } from "./api.js"
import { h, trouble } from "./dom.js"

let session = null // goes on while other pages are shown

/** The first WebSocket listener of a node that is in service. */
async function place() {
  const { settings } = await ask("ListSettings", { prefix: "listen" })
  for (const s of settings) {
    const url = s.value.split(",").find(u => u.startsWith("ws://") || u.startsWith("wss://"))
    if (!url) continue
    const u = new URL(url.replace(/^ws/, "http"))
    if (["", "0.0.0.0", "[::]"].includes(u.hostname)) u.hostname = location.hostname
    return u.href.replace(/^http/, "ws").replace(/\?.*/, "")
  }
  return ""
}

export function console(main, signal) {
  const field = (label, attributes) => { const input = h("input", attributes); return [h("label", {}, label, " ", input), input] }
  const [urlLabel, url] = field("Broker", { class: "wide", required: true, size: 28, placeholder: "ws://host:port/" })
  const [userLabel, user] = field("User", { autocomplete: "username", size: 10 })
  const [passwordLabel, password] = field("Password", { type: "password", autocomplete: "current-password", size: 10 })
  const [filterLabel, filter] = field("Filter", { required: true, value: "#" })
  const [topicLabel, topic] = field("Topic", { required: true })
  const [retainLabel, retain] = field("retained", { type: "checkbox" })
  const qos = label => h("select", { "aria-label": label }, [0, 1, 2].map(q => h("option", { value: q }, `QoS ${q}`)))
  const subQoS = qos("QoS of the subscription"), pubQoS = qos("QoS of the message")
  const payload = h("textarea", { "aria-label": "Payload" })
  const out = h("div", { class: "log", tabindex: "0", role: "log", "aria-label": "Messages" }), state = h("strong", {}, "not connected")
  const button = h("button", {}, "Connect")
  const say = (...what) => { out.append(h("div", {}, ...what)); if (out.childElementCount > 500) out.firstChild.remove(); out.scrollTop = out.scrollHeight }
  const show = m => say(h("strong", {}, m.topic), h("span", { class: "faint" }, ` QoS ${m.qos}${m.retain ? ", retained" : ""} `), new TextDecoder().decode(m.payload).slice(0, 2000))
  const attach = () => {
    session.onmessage = show
    session.addEventListener("state", e => {
      state.textContent = e.detail.state + (e.detail.reason ? ": " + e.detail.reason : "")
      button.textContent = e.detail.state === "stopped" ? "Connect" : "Disconnect"
    }, { signal })
  }
  const connected = fn => async e => {
    e.preventDefault()
    if (!session) { trouble("Connect first."); return }
    try { await fn(); trouble(null) } catch (error) { trouble(error) }
  }
  main.append(h("h1", {}, "Console"),
    h("form", {
      class: "bar", onsubmit: async e => {
        e.preventDefault()
        if (session) { await session.end().catch(() => {}); session = null; state.textContent = "not connected"; button.textContent = "Connect"; return }
        session = new Client({ url: url.value, clientId: "console-" + crypto.getRandomValues(new Uint32Array(1))[0].toString(16), username: user.value || undefined, password: password.value || undefined })
        attach()
        session.start()
      },
    }, urlLabel, userLabel, passwordLabel, button, state),
    h("form", { class: "bar", onsubmit: connected(async () => { await session.subscribe(filter.value, { qos: Number(subQoS.value) }); say(h("span", { class: "faint" }, "subscribed to " + filter.value)) }) },
      filterLabel, subQoS, h("button", {}, "Subscribe")),
    h("form", { onsubmit: connected(async () => { await session.publish(topic.value, payload.value, { qos: Number(pubQoS.value), retain: retain.checked }); say(h("span", { class: "faint" }, "published to " + topic.value)) }) },
      h("div", { class: "bar" }, topicLabel, pubQoS, retainLabel, h("button", {}, "Publish")), payload),
    h("h2", {}, "Messages"), out)
  if (session) { attach(); state.textContent = session.state; button.textContent = "Disconnect" }
  place().then(u => { if (!url.value) url.value = u }).catch(trouble)
}
