// Which page is shown: #/, #/clients, #/client/ID, …
import { client, list } from "./clients.js"
import { console } from "./console.js"
import { trouble } from "./dom.js"
import { events, trace } from "./live.js"
import { nodes } from "./nodes.js"
import { topics } from "./topics.js"

const pages = { "": nodes, clients: list("clients"), sessions: list("sessions"), topics, events, trace, console, client }
const parents = { client: "clients" }
const main = document.getElementById("main")
let leave = new AbortController()

function show() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?")
  if (path === "main") return // the link that skips to the content
  const [name, ...rest] = path.split("/")
  leave.abort()
  leave = new AbortController()
  trouble(null)
  main.replaceChildren()
  for (const a of document.querySelectorAll("nav a")) {
    if (a.getAttribute("href") === "#/" + (parents[name] ?? name)) a.setAttribute("aria-current", "page")
    else a.removeAttribute("aria-current")
  }
  const page = pages[name] ?? nodes
  document.title = (name || "nodes") + " – Skein"
  page(main, leave.signal, new URLSearchParams(query ?? ""), decodeURIComponent(rest.join("/")))
}

addEventListener("hashchange", () => { show(); main.focus() })
addEventListener("keydown", e => {
  if (e.key !== "/" || e.ctrlKey || e.metaKey || e.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(e.target.tagName)) return
  const search = main.querySelector("input[type=search], input.wide")
  if (search) { e.preventDefault(); search.focus() }
})
show()
