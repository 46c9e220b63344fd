// The page: what the model knows, drawn; what the person does, handed to the model.

import { Model } from "./model.js"

const $ = id => document.getElementById(id)
const config = await (await fetch("config.json")).json()
const url = config.websocket || `${location.protocol === "https:" ? "wss" : "ws"}://${location.hostname}:${config.port}/mqtt`

let model = null
let current // conversation that is shown; null: one that is to begin; undefined: none
let typingTimer, typed = 0

// ---- signing in

$("login-form").onsubmit = async event => {
  event.preventDefault()
  const user = $("user").value.trim(), password = $("password").value
  $("login-error").textContent = ""
  try {
    model = await Model.open({ user, password, assistants: config.assistants, url, keepalive: config.keepalive })
  } catch (err) {
    $("login-error").textContent = `Could not sign in: ${err.message}.`
    $("password").select()
    return
  }
  window.model = model // for whoever looks at it with the browser's tools
  $("login").hidden = true
  $("chat").hidden = false
  $("title").textContent = model.staff ? `${user} (assistant)` : user
  model.addEventListener("state", e => showState(e.detail))
  model.addEventListener("change", draw)
  model.addEventListener("typing", e => showTyping(e.detail))
  model.addEventListener("notice", e => { $("notice").textContent = e.detail.text })
  showState({ state: model.client.state })
  if (model.staff) draw()
  else select(model.open)
}

$("logout").onclick = async () => {
  await model.signOut()
  location.reload()
}

function showState({ state, reason, retryIn }) {
  const pending = model.client.pending
  $("connection").textContent = {
    online: "Connected",
    connecting: "Connecting …",
    offline: `Not connected${reason ? ` (${reason})` : ""}; what you write is kept and sent later`,
    stopped: `Signed out: ${reason ?? ""}`,
  }[state] + (state !== "online" && pending > 0 ? `, ${pending} waiting` : "")
  $("connection").className = state === "stopped" ? "bad" : ""
}

// ---- drawing, at most once a frame

let drawing = false
function draw() {
  if (drawing) return
  drawing = true
  requestAnimationFrame(() => {
    drawing = false
    drawNow()
  })
}

const element = (name, className, text) => {
  const e = document.createElement(name)
  if (className) e.className = className
  if (text !== undefined) e.textContent = text
  return e
}
const nameOf = c => c?.with ?? "Waiting for an assistant"
const time = at => new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })

function drawNow() {
  // A conversation that began here has its number now.
  if (current === null) current = model.open
  drawList()
  drawConversation()
  if (model.client.state !== "online") showState({ state: model.client.state })
}

// An element that is touched only when it changes keeps the focus, a click under way and a screen reader's place.
function setText(e, text) {
  if (e.textContent !== text) e.textContent = text
}

function newEntry(conv) {
  const item = element("li"), button = element("button"), name = element("span", "name"), unread = element("span", "unread")
  item.dataset.conv = button.dataset.conv = conv
  button.type = "button"
  button.onclick = () => select(conv)
  const dot = element("span", "dot")
  dot.setAttribute("aria-hidden", "true")
  name.append(dot, element("span", "who"), element("span", "whether unseen"))
  unread.append(element("span", "count"), element("span", "unseen", " unread"))
  button.append(name, unread, element("span", "last"))
  item.append(button)
  return item
}

function drawList() {
  const convs = [...model.convs.values()].sort((a, b) => (a.state === "closed") - (b.state === "closed") || b.conv - a.conv)
  const old = new Map([...$("list").children].map(e => [e.dataset.conv, e]))
  convs.forEach((c, i) => {
    const item = old.get(String(c.conv)) ?? newEntry(c.conv)
    old.delete(String(c.conv))
    const part = name => item.querySelector(`.${name}`)
    const there = Boolean(c.with) && model.there(c.with)
    part("dot").classList.toggle("there", there)
    setText(part("who"), nameOf(c))
    setText(part("whether"), there ? ", here" : ", away")
    item.firstChild.setAttribute("aria-current", String(c.conv === current))
    const unread = c.conv === current && document.hasFocus() ? 0 : model.unread(c.conv)
    part("unread").hidden = unread === 0
    setText(part("count"), String(unread))
    setText(part("last"), c.state === "closed" ? "closed" : model.messages(c.conv).at(-1)?.text ?? "")
    if ($("list").children[i] !== item) $("list").insertBefore(item, $("list").children[i] ?? null)
  })
  for (const gone of old.values()) gone.remove()
  $("nothing").hidden = convs.length > 0
  $("new").hidden = model.staff || convs.some(c => c.state !== "closed")
  const unread = convs.reduce((sum, c) => sum + model.unread(c.conv), 0)
  document.title = unread > 0 ? `(${unread}) Chat` : "Chat"
}

// The words behind the ticks; TOPICS.md says what each means.
const ticks = {
  waiting: ["◷", "not sent yet"], sent: ["↑", "sent"], committed: ["✓", "committed"],
  delivered: ["✓✓", "delivered"], read: ["✓✓", "read"], refused: ["!", "refused"],
}

// Items stay the same elements, so that a screen reader hears what is new and nothing twice.
function drawConversation() {
  $("conversation").hidden = current === undefined
  $("chat").classList.toggle("talking", current !== undefined)
  if (current === undefined) return
  const c = model.convs.get(current)
  $("peer").textContent = current === null ? "New conversation" : nameOf(c)
  const there = c?.with && model.there(c.with)
  $("presence").textContent = c?.with ? (there ? "here" : "away") : ""
  const closed = c?.state === "closed"
  $("close").hidden = !model.staff || closed
  $("text").disabled = closed
  $("text").placeholder = closed ? "This conversation is closed" : "Message"
  $("composer").querySelector("button").disabled = closed
  const known = current === null ? [] : model.messages(current)
  $("earlier").hidden = known.length === 0 || known[0].seq === 1
  const log = $("log"), atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60
  const list = $("messages"), old = new Map([...list.children].map(e => [e.dataset.key, e]))
  const lines = [
    ...known.map(m => ({ key: m.device === model.clientId ? `n${m.n}` : `s${m.seq}`, m, step: m.from === model.user ? model.tick(m) : null })),
    ...model.unconfirmed(current).map(m => ({ key: `n${m.n}`, m: { ...m, from: model.user }, step: m.step })),
  ]
  if (list.dataset.conv !== String(current)) {
    old.clear()
    list.replaceChildren()
    list.dataset.conv = String(current)
  }
  lines.forEach(({ key, m, step }, i) => {
    let item = old.get(key)
    old.delete(key)
    if (!item) {
      item = element("li", m.from === model.user ? "mine" : "")
      item.dataset.key = key
      const said = element("div", "said")
      said.dir = "auto"
      said.append(element("span", "unseen", `${m.from === model.user ? "You" : m.from}: `), element("span", "words", m.text))
      item.append(said, element("div", "meta"))
      if (m.from !== model.user) $("typing").textContent = ""
    }
    const meta = item.querySelector(".meta"), label = step ? ` · ${ticks[step].join(" ")}` : m.from === "bot" ? " · automatic answer" : ""
    if (meta.textContent !== time(m.at) + label) {
      meta.replaceChildren(time(m.at))
      if (label) meta.append(element("span", step ?? "", label))
    }
    if (list.children[i] !== item) list.insertBefore(item, list.children[i] ?? null)
  })
  for (const gone of old.values()) gone.remove()
  if (atEnd) log.scrollTop = log.scrollHeight
  seen()
}

function seen() {
  if (current && document.visibilityState === "visible" && document.hasFocus()) model.read(current)
}
document.addEventListener("visibilitychange", () => model && seen())
window.addEventListener("focus", () => model && draw())

function showTyping({ conv, by }) {
  if (conv !== current) return
  $("typing").textContent = `${by} is typing …`
  clearTimeout(typingTimer)
  typingTimer = setTimeout(() => { $("typing").textContent = "" }, 5000)
}

// ---- what the person does

function select(conv) {
  current = conv
  $("typing").textContent = $("notice").textContent = ""
  drawNow()
  $("log").scrollTop = $("log").scrollHeight
  if (conv !== undefined) $("text").focus()
}

$("new").onclick = () => select(null)
$("back").onclick = () => {
  const was = current
  select(undefined)
  $("list").querySelector(`button[data-conv="${was}"]`)?.focus()
}
$("close").onclick = () => model.close(current)
$("earlier").onclick = async () => {
  const height = $("log").scrollHeight
  await model.earlier(current)
  drawNow()
  $("log").scrollTop += $("log").scrollHeight - height
}

$("composer").onsubmit = async event => {
  event.preventDefault()
  const text = $("text").value.trim()
  if (!text || current === undefined) return
  $("text").value = ""
  typed = 0
  $("log").scrollTop = $("log").scrollHeight
  try {
    await model.send(current, text)
  } catch (err) {
    $("notice").textContent = `Could not keep the message: ${err.message}`
    $("text").value = text
  }
}
$("text").onkeydown = event => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault()
    $("composer").requestSubmit()
  }
}
// Some on-screen keyboards insert the line without telling which key it was.
$("text").addEventListener("beforeinput", event => { if (event.data === null && event.inputType === "insertLineBreak" && $("text").value.trim() === "") event.preventDefault() })
$("text").oninput = () => {
  if (current && Date.now() - typed > 3000) {
    typed = Date.now()
    model.typing(current)
  }
}
document.addEventListener("keydown", event => {
  if (!model) return
  if (event.key === "Escape" && current !== undefined) $("back").click()
  if (event.altKey && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
    const ids = [...$("list").querySelectorAll("button")].map(b => Number(b.dataset.conv))
    const at = ids.indexOf(current), next = ids[at + (event.key === "ArrowDown" ? 1 : -1)]
    if (next !== undefined) select(next)
    event.preventDefault()
  }
})
