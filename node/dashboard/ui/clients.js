// Clients and sessions, with search; and all about one of them.
import { ask } from "./api.js"
import { ago, bytes, clock, confirm, h, number, span, table, trouble } from "./dom.js"

const versions = { 3: "3.1", 4: "3.1.1", 5: "5.0" }
const link = id => h("a", { href: "#/client/" + encodeURIComponent(id) }, id)
const sum = o => Object.values(o).reduce((a, b) => a + Number(b), 0)

const kinds = {
  clients: {
    title: "Clients", method: "ListClients", field: "clients",
    columns: [
      { head: "Client", cell: c => link(c.id) }, { head: "Node", cell: c => c.node }, { head: "User", cell: c => c.username },
      { head: "Address", cell: c => c.address }, { head: "MQTT", cell: c => versions[c.protocol] ?? "" },
      { head: "Subscriptions", n: true, cell: c => number(c.subscriptions) }, { head: "In flight", n: true, cell: c => number(c.inflight) },
      { head: "Waiting", n: true, cell: c => number(c.queued) }, { head: "Dropped", n: true, cell: c => number(sum(c.dropped)) },
      { head: "Connected", n: true, cell: c => ago(c.connected) },
    ],
  },
  sessions: {
    title: "Sessions", method: "ListSessions", field: "sessions",
    columns: [
      { head: "Client", cell: s => link(s.id) }, { head: "Connected", cell: s => s.connected ? h("span", { class: "yes" }, s.node) : "no" },
      { head: "Subscriptions", n: true, cell: s => number(s.subscriptions) }, { head: "Queued", n: true, cell: s => number(s.queued) },
      { head: "Size", n: true, cell: s => bytes(s.queuedBytes) }, { head: "User", cell: s => s.username },
      { head: "Expires", n: true, cell: s => s.expiry === 4294967295 ? "never" : Number(s.expires) ? "in " + span(s.expires - Date.now()) : span(s.expiry * 1000) + " after" },
    ],
  },
}

export function list(kind) {
  return (main, signal, query) => {
    const k = kinds[kind]
    const search = h("input", { type: "search", name: "q", placeholder: "part of the client id, or node=node1,queued>0", "aria-label": "Search", value: query.get("q") ?? (query.get("node") ? "node=" + query.get("node") : "") })
    const out = h("div", { "aria-live": "polite" }), more = h("button", { type: "button", hidden: true }, "More")
    main.append(h("h1", {}, k.title), h("form", { class: "bar", role: "search", onsubmit: e => { e.preventDefault(); look() } }, search, h("button", {}, "Search")), out, more)
    let items = [], token = "", turn = 0
    const look = async next => {
      const mine = ++turn, text = search.value.trim()
      const selector = text === "" ? "" : /[=<>~]/.test(text) ? text : "id~" + text
      try {
        const res = await ask(k.method, { page: { size: 100, token: next ? token : "", selector } })
        if (mine !== turn || signal.aborted) return
        items = next ? items.concat(res[k.field]) : res[k.field]
        token = res.nextToken
        trouble(res.missing?.length ? "No answer from " + res.missing.map(m => m.node).join(", ") : null)
      } catch (e) { trouble(e); return }
      out.replaceChildren(table(k.columns, items, text ? "Nobody like that." : "Nobody."))
      more.hidden = token === ""
    }
    more.addEventListener("click", () => look(true))
    let wait
    search.addEventListener("input", () => { clearTimeout(wait); wait = setTimeout(look, 250) })
    look()
    const timer = setInterval(() => { if (items.length <= 100) look() }, 3000)
    signal.addEventListener("abort", () => { clearInterval(timer); clearTimeout(wait); turn++ })
  }
}

export function client(main, signal, _query, id) {
  const out = h("div", {})
  main.append(h("h1", {}, id), out)
  const order = (text, method, note) => h("button", {
    class: "danger",
    onclick: async () => {
      if (!await confirm(`${text}: ${id}? ${note}`)) return
      try { await ask(method, { id }); look() } catch (e) { trouble(e) }
    },
  }, text)
  const look = async () => {
    let d
    try { d = await ask("DescribeClient", { id }); trouble(null) } catch (e) { trouble(e); return }
    if (signal.aborted) return
    const c = d.client, s = d.session
    const facts = []
    const fact = (name, ...value) => facts.push(h("dt", {}, name), h("dd", {}, ...value))
    fact("Connected", c ? `to ${c.node}, for ${ago(c.connected)}, from ${c.address}` : "no")
    if (c) {
      fact("Protocol", `MQTT ${versions[c.protocol] ?? c.protocol}, keep alive ${c.keepalive}s, by ${c.listener}`)
      fact("User", c.username || "–")
      fact("In flight, waiting", `${number(c.inflight)}, ${number(c.queued)}`)
      fact("From it", `${number(c.messagesIn)} messages, ${bytes(c.bytesIn)}`)
      fact("To it", `${number(c.messagesOut)} messages, ${bytes(c.bytesOut)}`)
    }
    fact("Session", s ? `${number(s.queued)} messages queued, ${bytes(s.queuedBytes)}; expires ${s.expiry === 4294967295 ? "never" : span(s.expiry * 1000) + " after it disconnects"}` : "none is stored")
    const focused = out.contains(document.activeElement)
    if (focused) return // nobody's button goes away while it is being pressed
    out.replaceChildren(
      h("div", { class: "bar" }, h("a", { href: "#/trace?client=" + encodeURIComponent(id) }, "Trace its messages"),
        c ? order("Disconnect", "DisconnectClient", "Its session stays, and it may connect again.") : null,
        s ? order("Delete the session", "DeleteSession", "Its queue and subscriptions are lost.") : null),
      h("dl", {}, facts),
      h("h2", {}, "Not delivered"),
      table([{ head: "Reason", cell: r => r[0] }, { head: "Messages", n: true, cell: r => number(r[1]) }], Object.entries(d.dropped), "Everything has been delivered."),
      h("h2", {}, "Subscriptions"),
      table([{ head: "Filter", cell: x => x.filter, text: true }, { head: "Group", cell: x => x.group }, { head: "QoS", n: true, cell: x => String(x.qos) }], d.subscriptions),
      h("h2", {}, "Last events"),
      table([{ head: "Time (UTC)", cell: e => clock(e.time) }, { head: "Node", cell: e => e.node }, { head: "", cell: e => e.kind },
        { head: "", text: true, cell: e => h("span", { class: e.warning ? "warning" : null }, e.message) }], [...d.events].reverse()))
  }
  look()
  const timer = setInterval(look, 2000)
  signal.addEventListener("abort", () => clearInterval(timer))
}
