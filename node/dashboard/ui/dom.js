// Small helpers: elements, numbers and times for people. Text is always set as text, never as HTML.

/** h("td", { class: "n" }, "text", node, …) */
export function h(tag, attributes = {}, ...children) {
  const e = document.createElement(tag)
  for (const [k, v] of Object.entries(attributes)) {
    if (k.startsWith("on")) e.addEventListener(k.slice(2), v)
    else if (v === true) e.setAttribute(k, "")
    else if (v !== false && v != null) e.setAttribute(k, v)
  }
  e.append(...children.flat().filter(c => c != null))
  return e
}

/** A table of columns { head, cell(item), n (a number), text (may wrap) }. */
export function table(columns, items, empty = "Nothing.") {
  if (items.length === 0) return h("p", { class: "faint" }, empty)
  const kind = c => c.n ? "n" : c.text ? "text" : null
  return h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Table" }, h("table", {},
    h("thead", {}, h("tr", {}, columns.map(c => h("th", { scope: "col", class: kind(c) }, c.head)))),
    h("tbody", {}, items.map(i => h("tr", {}, columns.map(c => h("td", { class: kind(c) }, c.cell(i) ?? "")))))))
}

export const number = n => Number(n).toLocaleString("en")
export const rate = n => n >= 1000 ? (n / 1000).toFixed(1) + "k" : n >= 10 ? n.toFixed(0) : n.toFixed(1)

export function bytes(n) {
  n = Number(n)
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (n < 1024 || unit === "GiB") return (unit === "B" ? n : n.toFixed(1)) + " " + unit
    n /= 1024
  }
}

export function span(ms) {
  const s = Math.max(0, Math.round(ms / 1000))
  if (s < 120) return s + "s"
  if (s < 7200) return Math.round(s / 60) + "m"
  return s < 172800 ? Math.round(s / 3600) + "h" : Math.round(s / 86400) + "d"
}

export const ago = ms => Number(ms) ? span(Date.now() - Number(ms)) : ""
export const clock = ms => new Date(Number(ms)).toISOString().slice(11, 23)

export function fromBase64(text) {
  const b = Uint8Array.from(atob(text ?? ""), c => c.charCodeAt(0))
  const s = new TextDecoder().decode(b)
  return s.includes("\ufffd") ? `${b.length} bytes` : s
}

/** Asks before something is changed. */
export function confirm(text) {
  const d = document.getElementById("ask")
  d.querySelector("p").textContent = text
  d.returnValue = "no"
  d.showModal()
  return new Promise(done => d.addEventListener("close", () => done(d.returnValue === "yes"), { once: true }))
}

export function trouble(error) {
  const e = document.getElementById("trouble")
  e.hidden = !error
  e.textContent = error ? String(error.message ?? error) : ""
}
