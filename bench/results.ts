// The results of a run: columns of samples by peer, and how they are compared.

import type { Peer } from './peers.ts'
import { type Sample, type Samples, median } from './rounds.ts'

export interface Column {
  /** For example `echo-64`. */
  id: string
  /** Title of the table that the column belongs to. */
  table: string
  label: string
  /** The label for use outside of its table. */
  title: string
  unit: string
  /** A rate: more is better, and it is divided by processor time. Otherwise an amount: less is better. */
  rate: boolean
  /** Id of the peer that ratios refer to. Default: `BASE` */
  base?: string
  /** Id of the peer that is the physical bound. Default: `BOUND` */
  bound?: string
  /** What is measured. Default: the server */
  server?: string
  samples: Samples
}

export interface Results {
  machine: string
  isolation: string
  peers: Peer[]
  columns: Column[]
}

/** Id of the peer that ratios refer to. */
export const BASE = 'fastify'

/** The processor time of the server, or wall-clock time. */
export type By = 'processor' | 'clock'

/**
 * Rates are compared per second of the server's processor time, so that neither a slow client nor other work on the
 * machine makes a server look slow. If the server was busy all the time, both rates are the same.
 */
function comparable (column: Column, sample: Sample, by: By): number {
  return column.rate && by === 'processor' ? sample.value / sample.busy : sample.value
}

export function figure (column: Column, id: string, by: By = 'processor'): number | null {
  const samples = column.samples.get(id) ?? []
  return samples.length === 0 ? null : median(samples.map((sample) => comparable(column, sample, by)))
}

export function detail (column: Column, id: string, name: 'busy' | 'p50' | 'p99'): number | null {
  const values = column.samples.get(id)!.flatMap((sample) => sample[name] ?? [])
  return values.length === 0 ? null : median(values)
}

/** The figure of a peer divided by that of another: the median of the ratios of each round. */
export function ratio (column: Column, id: string, other: string, by: By = 'processor'): number | null {
  const values = ratios(column, id, other, by)
  return values.length === 0 ? null : median(values)
}

/** The lowest and the highest of the ratios of each round. */
export function spread (column: Column, id: string, other: string): [number, number] {
  const values = ratios(column, id, other, 'processor')
  return [Math.min(...values), Math.max(...values)]
}

function ratios (column: Column, id: string, other: string, by: By): number[] {
  const samples = column.samples.get(id) ?? []
  const others = column.samples.get(other) ?? []
  if (others.length === 0) return []
  return samples.map((sample, round) => comparable(column, sample, by) / comparable(column, others[round], by))
}
