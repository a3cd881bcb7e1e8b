// Formats the results as Markdown.

import type { Close } from './measures/close.ts'
import type { Point } from './measures/growth.ts'
import type { Line } from './measures/micro.ts'
import type { Relayed } from './measures/proxy.ts'
import type { Routes } from './measures/routes.ts'
import { BOUND, type Peer } from './peers.ts'
import { BASE, type Column, type Results, detail, figure, ratio, spread } from './results.ts'

export function markdownTable (head: string[], rows: string[][]): string {
  const line = (cells: string[]): string => `| ${cells.join(' | ')} |`
  return [line(head), line(head.map((_, i) => i === 0 ? '---' : '--:')), ...rows.map(line)].join('\n')
}

export function reportTables (results: Results): string {
  const names = [...new Set(results.columns.map(({ table }) => table))]
  return names.map((name) => reportTable(name, results)).join('\n\n')
}

function reportTable (name: string, { columns, peers }: Results): string {
  const ownColumns = columns.filter(({ table }) => table === name)
  const measured = peers.filter(({ id }) => ownColumns.some(({ samples }) => samples.has(id)))
  const table = (cell: (column: Column, id: string) => string, head: (column: Column) => string): string => {
    return markdownTable([name, ...ownColumns.map(head)], measured.map((peer) => [peer.label, ...ownColumns.map((column) => {
      const samples = column.samples.get(peer.id)
      return samples === undefined ? '-' : samples.length === 0 ? 'stalls' : cell(column, peer.id)
    })]))
  }
  const base = measured.find(({ id }) => id === (ownColumns[0].base ?? BASE))
  const server = ownColumns[0].server ?? 'server'
  const bound = measured.find(({ id }) => id === (ownColumns[0].bound ?? BOUND))
  return [
    base === undefined ? '' : `Times ${base.label}, per second of the ${server}'s processor time, with the lowest and the highest of the rounds:\n\n` + table(ratioCell, headOf),
    `Per second of the ${server}'s processor time:\n\n` + table(figureCell, ({ label, unit }) => `${label}, ${unit}`),
    bound === undefined ? '' : `Distance from the limit, which is ${bound.label}: the figure divided by its figure:\n\n` + table(boundCell, headOf),
    `By wall-clock time, with the share of it in which the ${server} was busy:\n\n` + table(wallCell, ({ label, unit }) => `${label}, ${unit}`)
  ].filter((text) => text !== '').join('\n\n')
}

function headOf ({ label, rate }: Column): string {
  return rate ? label : `${label} (less is better)`
}

function ratioCell (column: Column, id: string): string {
  const base = column.base ?? BASE
  const times = ratio(column, id, base)
  if (times === null) return '-'
  const [from, to] = spread(column, id, base)
  return `${round(times)} × (${round(from)} to ${round(to)})`
}

function boundCell (column: Column, id: string): string {
  const distance = ratio(column, id, column.bound ?? BOUND)
  return distance === null ? '-' : round(distance)
}

function figureCell (column: Column, id: string): string {
  return round(figure(column, id)!)
}

function wallCell (column: Column, id: string): string {
  const value = round(figure(column, id, 'clock')!)
  if (!column.rate) return value
  const [busy, p50, p99] = (['busy', 'p50', 'p99'] as const).map((name) => detail(column, id, name))
  const latency = p50 === null ? '' : `; p50 ${p50.toFixed(2)}, p99 ${p99!.toFixed(2)} ms`
  return `${value} (${(busy! * 100).toFixed(0)} %${latency})`
}

/** About three significant digits, with a k for thousands. */
export function round (value: number): string {
  if (value >= 10_000) return `${(value / 1000).toFixed(1)} k`
  if (value >= 100) return value.toFixed(0)
  return value.toFixed(value >= 10 ? 1 : 2)
}

export function reportRoutes (results: Routes[]): string {
  return 'Ordinary routes with the plugin, times those without it, per second of processor time:\n\n' +
    markdownTable(['Ordinary routes', 'ratio', '95 % confidence', 'pairs of processes'], results.map(({ what, ratio, from, to, pairs }) => (
      [what, ratio.toFixed(3), `${from.toFixed(3)} to ${to.toFixed(3)}`, String(pairs)]
    )))
}

export function reportRelayed (shares: Relayed[]): string {
  const cells = shares.map(({ share }) => `${(share * 100).toFixed(0)} %`)
  return markdownTable(['', ...shares.map(({ direction, chunks }) => `${direction}, ${chunks}`)], [['Content that the proxy of this plugin wrote without a copy', ...cells]])
}

export function reportLengths (peer: Peer, points: Point[]): string {
  return curve(`Length of the body, ${peer.label}`, points, (x) => `${x} MiB`, 'ns per byte', 3)
}

export function reportItems (peer: Peer, points: Point[]): string {
  return curve(`Items of one body, ${peer.label}`, points, round, 'ns per item', 0)
}

export function reportClose (results: Close[]): string {
  return markdownTable(['`app.close()`', 'open exchanges', 'seconds', 'seconds of processor time'], results.map(({ what, open, seconds, processorSeconds }) => (
    [what, String(open), seconds.toFixed(2), processorSeconds.toFixed(2)]
  )))
}

export function reportOpen (peer: Peer, points: Point[]): string {
  return curve(`Other open exchanges, ${peer.label}`, points, String, 'µs per exchange', 1)
}

function curve (title: string, points: Point[], x: (value: number) => string, unit: string, digits: number): string {
  return markdownTable([title, ...points.map((point) => x(point.x))], [
    [unit, ...points.map(({ cost }) => cost.toFixed(digits))],
    ['times the lowest', ...points.map(({ cost }) => (cost / Math.min(...points.map(({ cost }) => cost))).toFixed(2))]
  ])
}

export function reportMicro (groups: Record<string, Line[]>): string {
  return Object.entries(groups).map(([name, lines]) => {
    const units = [['perByte', 'ns per byte', 3], ['perChunk', 'ns per chunk', 0], ['perRead', 'ns per read', 0], ['perWrite', 'ns per write', 0]] as const
    const used = units.filter(([key]) => lines[0][key] !== undefined)
    return markdownTable([name, ...used.map(([, unit]) => unit)], lines.map((line) => [line.what, ...used.map(([key, , digits]) => line[key]!.toFixed(digits))]))
  }).join('\n\n')
}
