// Retained messages and subscriptions as trees of topic levels.
import { all } from "./api.js"
import { ago, bytes, fromBase64, h, trouble } from "./dom.js"

const limit = 5000

function tree(items, path, leaf) {
  const root = new Map()
  for (const i of items) {
    let at = root
    for (const level of path(i).split("/")) {
      if (!at.has(level)) at.set(level, { items: [], below: new Map(), n: 0 })
      const node = at.get(level)
      node.n++
      node.last = node
      at = node.below
      i._ = node
    }
    i._.items.push(i)
  }
  const draw = level => [...level].sort((a, b) => a[0] < b[0] ? -1 : 1).map(([name, node]) => {
    const leaves = node.items.map(i => h("div", { class: "leaf" }, leaf(i)))
    const title = name === "" ? "(empty)" : name
    if (node.below.size === 0) return h("div", { class: "leaf" }, h("strong", {}, title), " ", ...leaves)
    const d = h("details", {}, h("summary", {}, title, h("span", { class: "faint" }, ` ${node.n}`)))
    d.addEventListener("toggle", () => { if (d.open && d.childElementCount === 1) d.append(...leaves, ...draw(node.below)) }, { once: false })
    return d
  })
  return draw(root)
}

export function topics(main, signal) {
  const retained = h("div", {}, "…"), subscriptions = h("div", {}, "…")
  main.append(h("h1", {}, "Topics"), h("h2", {}, "Retained messages"), retained, h("h2", {}, "Subscriptions"), subscriptions)
  const load = async (out, method, field, path, leaf) => {
    try {
      const { items, more } = await all(method, field, {}, limit)
      if (signal.aborted) return
      out.replaceChildren(...(items.length ? tree(items, path, leaf) : [h("p", { class: "faint" }, "None.")]))
      if (more) out.append(h("p", { class: "faint" }, `These are the first ${limit}.`))
    } catch (e) { trouble(e) }
  }
  load(retained, "ListRetained", "retained", r => r.topic,
    r => h("span", {}, h("span", { class: "faint" }, `QoS ${r.qos}, ${bytes(r.size)}, ${ago(r.stored)} ago: `), fromBase64(r.payload).slice(0, 200)))
  load(subscriptions, "ListSubscriptions", "subscriptions", s => (s.group ? `$share/${s.group}/` : "") + s.filter,
    s => h("span", {}, h("a", { href: "#/client/" + encodeURIComponent(s.client) }, s.client), h("span", { class: "faint" }, ` QoS ${s.qos}${s.node ? ", on " + s.node : ", not connected"}`)))
}
