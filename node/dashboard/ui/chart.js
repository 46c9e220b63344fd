// A line chart in SVG: the last minutes of some series.
import { h } from "./dom.js"

const ns = "http://www.w3.org/2000/svg"
const width = 300, height = 100

export class Chart {
  #series = new Map() // name -> [number or null]
  #length
  #format
  #ticks = 0

  constructor(title, format, length = 150) {
    this.#length = length
    this.#format = format
    this.max = h("span", {})
    this.svg = document.createElementNS(ns, "svg")
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`)
    this.svg.setAttribute("preserveAspectRatio", "none")
    this.svg.setAttribute("aria-hidden", "true")
    this.legend = h("ul", {})
    this.element = h("figure", {}, h("figcaption", {}, h("span", {}, title), this.max), this.svg, this.legend)
  }

  /** Adds one point of each series: { name: number }. */
  add(point) {
    this.#ticks++
    for (const name of Object.keys(point)) if (!this.#series.has(name)) this.#series.set(name, new Array(Math.min(this.#ticks - 1, this.#length)).fill(null))
    for (const [name, values] of this.#series) {
      values.push(point[name] ?? null)
      if (values.length > this.#length) values.shift()
    }
    this.#draw()
  }

  #draw() {
    let top = 0
    for (const values of this.#series.values()) for (const v of values) top = Math.max(top, v ?? 0)
    this.max.textContent = top ? "up to " + this.#format(top) : ""
    const lines = [], items = []
    let k = 0
    for (const [name, values] of this.#series) {
      const color = `var(--c${k++ % 6})`
      let d = "", pen = "M"
      values.forEach((v, i) => {
        if (v === null) { pen = "M"; return }
        d += `${pen}${((this.#length - values.length + i) * width / (this.#length - 1)).toFixed(1)} ${(height - 3 - (top ? v / top : 0) * (height - 8)).toFixed(1)}`
        pen = "L"
      })
      const path = document.createElementNS(ns, "path")
      path.setAttribute("d", d)
      path.setAttribute("fill", "none")
      path.setAttribute("vector-effect", "non-scaling-stroke")
      path.setAttribute("stroke-width", "1.8")
      path.style.stroke = color
      lines.push(path)
      const last = values.at(-1)
      const item = h("li", {}, `${name} ${last === null ? "–" : this.#format(last)}`)
      item.style.setProperty("--color", color)
      items.push(item)
    }
    this.svg.replaceChildren(...lines)
    this.legend.replaceChildren(...items)
  }
}
