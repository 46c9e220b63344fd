// What a session's client must remember: in IndexedDB, or in memory for pages that need no more.
//
// Both kinds have the same methods. Each returns a promise that is kept once the change is durable;
// changes become durable in the order of the calls.
//
//   load()                 { known, out: [records in order], ids: [packet ids] }
//   put(record, also)      keeps a message on its way out; gives it an order when it has none
//   remove(order)          it is done
//   receive(id, message, also)  a message came in; id is to be remembered (QoS 2), 0: nothing is
//   release(id)            PUBREL came
//   setKnown(flag)         whether the server may know a session of ours
//   dropIds()              the session is gone, and its packet ids with it
//
// also(tx) may write into stores of the application in the very same transaction, so that a page which
// ends at any moment has either both or nothing.

export class MemoryStore {
  #out = new Map()
  #ids = new Set()
  #known = false
  #order = 0
  async load() { return { known: this.#known, out: [...this.#out.values()], ids: [...this.#ids] } }
  async put(record, also) {
    record.order ??= ++this.#order
    this.#out.set(record.order, record)
    also?.(null)
  }
  async remove(order) { this.#out.delete(order) }
  async receive(id, message, also) {
    if (id) this.#ids.add(id)
    also?.(null)
  }
  async release(id) { this.#ids.delete(id) }
  async setKnown(flag) { this.#known = flag }
  async dropIds() { this.#ids.clear() }
  close() {}
}

const own = { "mqtt-out": { keyPath: "order" }, "mqtt-in": { keyPath: "id" }, "mqtt-meta": { keyPath: "name" } }

export class Store {
  #order = 0
  #durability

  /**
   * Opens the database of one session. stores are object stores of the application in the same
   * database, { name: { keyPath, autoIncrement, indexes: { name: keyPath } } }; a higher version adds what
   * is new. durability "strict" waits for the disk, "relaxed" for the browser. Two pages must not
   * use one session: see claimSlot.
   */
  static async open(name, { stores = {}, version = 1, durability = "strict" } = {}) {
    const opening = indexedDB.open(name, version)
    opening.onupgradeneeded = () => {
      for (const [store, { indexes = {}, ...options }] of Object.entries({ ...own, ...stores })) {
        if (opening.result.objectStoreNames.contains(store)) continue
        const made = opening.result.createObjectStore(store, options)
        for (const [index, keyPath] of Object.entries(indexes)) made.createIndex(index, keyPath)
      }
    }
    const store = new Store(await result(opening), durability)
    store.db.onversionchange = () => store.db.close() // a newer page waits for us
    const last = await result(store.#read("mqtt-out").openKeyCursor(null, "prev"))
    store.#order = last?.key ?? 0
    return store
  }

  constructor(db, durability) {
    this.db = db
    this.#durability = durability
  }

  #read(name) { return this.db.transaction(name, "readonly").objectStore(name) }

  /** Runs change(tx) in one transaction over all stores; kept when that is durable. */
  change(change) {
    return new Promise((resolve, reject) => {
      const tx = this.db.transaction(this.db.objectStoreNames, "readwrite", { durability: this.#durability })
      tx.oncomplete = () => resolve()
      tx.onabort = () => reject(tx.error ?? new Error("the change was given up"))
      try {
        change(tx)
      } catch (err) {
        tx.abort()
        reject(err)
      }
    })
  }

  async load() {
    const [out, ids, known] = await Promise.all([
      result(this.#read("mqtt-out").getAll()), result(this.#read("mqtt-in").getAllKeys()), result(this.#read("mqtt-meta").get("known")),
    ])
    return { known: known?.value === true, out, ids }
  }

  put(record, also) {
    record.order ??= ++this.#order
    return this.change(tx => {
      tx.objectStore("mqtt-out").put(record)
      also?.(tx)
    })
  }

  remove(order) { return this.change(tx => tx.objectStore("mqtt-out").delete(order)) }

  receive(id, message, also) {
    return this.change(tx => {
      if (id) tx.objectStore("mqtt-in").put({ id })
      also?.(tx)
    })
  }

  release(id) { return this.change(tx => tx.objectStore("mqtt-in").delete(id)) }
  setKnown(value) { return this.change(tx => tx.objectStore("mqtt-meta").put({ name: "known", value })) }
  dropIds() { return this.change(tx => tx.objectStore("mqtt-in").clear()) }
  close() { this.db.close() }
}

/** A promise for an IndexedDB request. */
export function result(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result)
    request.onerror = () => reject(request.error)
  })
}

/**
 * Takes the first of the numbers 0 … max-1 that no other page of this origin holds, until the page ends:
 * pages of one user are different clients, and a page that is loaded again is the same one. Null when
 * the browser has no locks (it has none on plain http beyond localhost) or all are taken.
 */
export async function claimSlot(name, max = 16) {
  if (!navigator.locks) return null
  for (let slot = 0; slot < max; slot++) {
    const got = await new Promise(resolve => {
      navigator.locks.request(`${name}-${slot}`, { ifAvailable: true }, lock => {
        resolve(lock !== null)
        return lock && new Promise(() => {}) // held as long as the page lives
      })
    })
    if (got) return slot
  }
  return null
}
