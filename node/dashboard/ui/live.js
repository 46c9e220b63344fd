// What happens now: events of the nodes, and single messages step by step.
import { ask, stream } from "./api.js"
import { clock, h, trouble } from "./dom.js"

const lines = 500

function log(out, ...children) {
  const end = out.scrollTop + out.clientHeight >= out.scrollHeight - 8
  out.append(h("div", {}, ...children))
  if (out.childElementCount > lines) out.firstChild.remove()
  if (end) out.scrollTop = out.scrollHeight
}

/** Follows a stream until the page is left; one that breaks is tried again. */
async function follow(method, request, each, signal) {
  while (!signal.aborted) {
    try { await stream(method, request, each, signal); trouble(null) } catch (e) { if (!signal.aborted) trouble(e) }
    await new Promise(done => setTimeout(done, 2000))
  }
}

export function events(main, signal) {
  const out = h("div", { class: "log", tabindex: "0", role: "log", "aria-label": "Events" })
  const warnings = h("input", { type: "checkbox" })
  main.append(h("h1", {}, "Events"), h("label", { class: "bar" }, warnings, "only warnings"), out)
  const show = e => {
    if (warnings.checked && !e.warning) return
    log(out, h("span", { class: "faint" }, `${clock(e.time)} ${e.node} `), e.kind, " ",
      e.client ? h("a", { href: "#/client/" + encodeURIComponent(e.client) }, e.client) : "", " ", h("span", { class: e.warning ? "warning" : null }, e.message))
  }
  let kept = []
  warnings.addEventListener("change", () => { out.replaceChildren(); kept.forEach(show) })
  const take = e => { kept.push(e); kept = kept.slice(-lines); show(e) }
  ask("ListEvents", { page: { size: 200 } }).then(res => { if (!signal.aborted) res.events.forEach(take) }).catch(trouble)
  follow("WatchEvents", {}, take, signal)
}

export function trace(main, signal, query) {
  const out = h("div", { class: "log", tabindex: "0", role: "log", "aria-label": "Steps" })
  const what = h("select", { "aria-label": "What to follow" }, h("option", { value: "filter" }, "Topic filter"), h("option", { value: "client" }, "Client id"))
  const text = h("input", { class: "wide", required: true, "aria-label": "Filter or client id", value: query.get("client") ?? query.get("filter") ?? "#" })
  if (query.get("client")) what.value = "client"
  const button = h("button", {}, "Follow")
  let running = null
  const first = new Map()
  const step = s => {
    if (!s.message) { log(out, h("span", { class: "faint" }, `${s.node} ${s.kind === "joined" ? "takes part" : "does not take part: " + s.detail}`)); return }
    if (!first.has(s.message)) { if (first.size > 1000) first.clear(); first.set(s.message, BigInt(s.time)) }
    const after = Number(BigInt(s.time) - first.get(s.message)) / 1e6
    log(out, h("span", { class: "faint" }, `${s.message.slice(0, 8)} ${s.node} +${after.toFixed(2)}ms `), h("strong", {}, s.kind), " ", s.client, " ", s.topic,
      h("span", { class: s.kind === "dropped" ? "danger" : "faint" }, ` ${s.detail}${Number(s.index) ? `, log index ${s.index}` : ""}${Number(s.tookNano) ? ` (${(s.tookNano / 1e6).toFixed(2)} ms)` : ""}`))
  }
  main.append(h("h1", {}, "Trace"), h("form", {
    class: "bar", onsubmit: e => {
      e.preventDefault()
      if (running) { running.abort(); running = null; button.textContent = "Follow"; return }
      running = new AbortController()
      signal.addEventListener("abort", () => running?.abort())
      button.textContent = "Stop"
      follow("Trace", { [what.value]: text.value, rate: 100 }, step, running.signal)
    },
  }, what, text, button), out)
  if (query.get("client")) button.click()
}
