// The admin service by JSON over HTTP: one request, or a stream of objects.

const base = "skein.admin.v1.Admin/"

async function problem(res) {
  const body = await res.json().catch(() => null)
  return new Error(body?.message ?? `${res.status} ${res.statusText}`)
}

/** Asks a method and resolves with its answer. */
export async function ask(method, request = {}) {
  const res = await fetch(base + method, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(request) })
  if (!res.ok) throw await problem(res)
  return res.json()
}

/** Calls each(object) for what a method streams, until it ends or signal aborts. */
export async function stream(method, request, each, signal) {
  const res = await fetch(base + method, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(request), signal })
  if (!res.ok) throw await problem(res)
  const reader = res.body.pipeThrough(new TextDecoderStream()).getReader()
  let rest = ""
  for (;;) {
    const { value, done } = await reader.read()
    if (done) return
    const lines = (rest + value).split("\n")
    rest = lines.pop()
    for (const line of lines) {
      const m = JSON.parse(line)
      if (m.error?.message) throw new Error(m.error.message)
      each(m)
    }
  }
}

/** All items of a list, page after page, at most limit. */
export async function all(method, field, request = {}, limit = 2000) {
  const items = []
  let token = ""
  do {
    const res = await ask(method, { ...request, page: { ...request.page, size: Math.min(500, limit - items.length), token } })
    items.push(...res[field])
    token = res.nextToken
  } while (token && items.length < limit)
  return { items, more: token !== "" }
}
