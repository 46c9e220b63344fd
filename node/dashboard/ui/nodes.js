// The cluster: its nodes, what they do, and what does not arrive.
import { ask, stream } from "./api.js"
import { Chart } from "./chart.js"
import { ago, bytes, confirm, h, number, rate, table, trouble } from "./dom.js"

const every = 2000

export function nodes(main, signal) {
  const list = h("div", {}), drops = h("div", {}), progress = h("div", { "aria-live": "polite" })
  const charts = {
    clients: new Chart("Clients", number), received: new Chart("Messages in per second", rate), sent: new Chart("Messages out per second", rate),
    commit: new Chart("Commit, mean", v => v.toFixed(1) + " ms"), dropped: new Chart("Dropped per second", rate), backlog: new Chart("Waiting for the log", bytes),
  }
  main.append(h("h1", {}, "Nodes"), list, progress, h("div", { class: "charts" }, Object.values(charts).map(c => c.element)),
    h("h2", {}, "Not delivered, by reason"), drops)
  let before = new Map(), at = 0
  const look = async () => {
    const res = await ask("ListNodes").catch(e => { trouble(e); return null })
    if (!res || signal.aborted) return
    trouble(res.missing.length ? "No answer from " + res.missing.map(m => `${m.node}: ${m.reason}`).join(", ") : null)
    const now = performance.now(), seconds = (now - at) / 1000
    const sum = {}, points = Object.fromEntries(Object.keys(charts).map(k => [k, {}]))
    for (const n of res.nodes) {
      for (const [reason, count] of Object.entries(n.dropped)) sum[reason] = (sum[reason] ?? 0) + Number(count)
      const old = before.get(n.id)
      if (n.state === "down" || n.state === "unknown") continue
      points.clients[n.id] = Number(n.clients)
      points.backlog[n.id] = Number(n.backlog)
      if (!old || old.started !== n.started) continue
      const total = d => Object.values(d).reduce((a, b) => a + Number(b), 0)
      n.in = points.received[n.id] = (n.received - old.received) / seconds
      n.out = points.sent[n.id] = (n.sent - old.sent) / seconds
      points.dropped[n.id] = (total(n.dropped) - total(old.dropped)) / seconds
      const commits = n.commits - old.commits
      if (commits > 0) points.commit[n.id] = (n.commitNano - old.commitNano) / commits / 1e6
    }
    for (const k in charts) charts[k].add(points[k])
    before = new Map(res.nodes.map(n => [n.id, n]))
    at = now
    const focus = document.activeElement?.dataset?.key // buttons are made anew
    list.replaceChildren(table([
      { head: "Node", cell: n => n.id },
      { head: "State", cell: n => h("span", { class: "state " + n.state, title: n.reason || null }, n.state) },
      { head: "Role", cell: n => n.role },
      { head: "Clients", n: true, cell: n => h("a", { href: "#/clients?node=" + encodeURIComponent(n.id) }, number(n.clients)) },
      { head: "In/s", n: true, cell: n => n.in === undefined ? "" : rate(n.in) },
      { head: "Out/s", n: true, cell: n => n.out === undefined ? "" : rate(n.out) },
      { head: "Up", n: true, cell: n => ago(n.started) },
      { head: "Version", cell: n => n.version },
      { head: "MQTT", cell: n => n.mqttAddress },
      { head: "", cell: n => actions(n, progress) },
    ], res.nodes))
    if (focus) list.querySelector(`[data-key="${CSS.escape(focus)}"]`)?.focus()
    drops.replaceChildren(table([
      { head: "Reason", cell: r => r[0] }, { head: "Messages", n: true, cell: r => number(r[1]) },
    ], Object.entries(sum).sort((a, b) => b[1] - a[1]), "Everything has been delivered."))
  }
  look()
  const timer = setInterval(look, every)
  signal.addEventListener("abort", () => clearInterval(timer))
}

function actions(n, progress) {
  if (n.state === "down" || n.state === "unknown") return null
  const button = (text, what, request, note) => h("button", {
    "data-key": what + n.id,
    onclick: async () => {
      if (!await confirm(`${text} ${n.id}? ${note}`)) return
      try { await ask(what, request) } catch (e) { trouble(e) }
    },
  }, text)
  const cordoned = n.state === "cordoned"
  return h("span", { class: "bar" },
    n.state === "ready" ? button("Cordon", "CordonNode", { node: n.id, on: true }, "New clients are asked to go elsewhere; those that it has stay.") : null,
    cordoned ? button("Uncordon", "CordonNode", { node: n.id, on: false }, "New clients are let in again.") : null,
    n.state === "ready" || cordoned ? h("button", { "data-key": "DrainNode" + n.id, onclick: () => drain(n, progress) }, "Drain") : null)
}

async function drain(n, progress) {
  if (!await confirm(`Drain ${n.id}? Its ${number(n.clients)} clients are asked to move. It stays out of service until it is restarted.`)) return
  const bar = h("progress", { max: 1, value: 0 }), text = h("span", {}, "begins")
  progress.append(h("p", {}, `Drain of ${n.id}: `, text, h("br"), bar))
  try {
    await stream("DrainNode", { node: n.id }, p => {
      const total = Number(p.total), left = Number(p.left)
      text.textContent = p.done ? "done" : `${p.phase}, ${number(left)} of ${number(total)} clients left`
      bar.max = total || 1
      bar.value = p.done ? bar.max : total - left
    })
  } catch (e) { text.textContent = "failed: " + e.message }
}
