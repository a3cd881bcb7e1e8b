// What a run has measured: columns of figures by peer, and how they are compared.

import type { Peer } from './peers.ts'
import { type Sample, type Samples, median } from './rounds.ts'

export interface Column {
  /** Like `echo-64`. */
  id: string
  /** The table it stands in. */
  table: string
  label: string
  /** The same where it stands alone. */
  title: string
  unit: string
  /** Per second: more is better, and the processor time it took counts. Otherwise an amount: less is better. */
  rate: boolean
  samples: Samples
}

export interface Results {
  machine: string
  place: string
  peers: Peer[]
  columns: Column[]
}

/** Ratios are to this one. */
export const BASE = 'fastify'

/** The processor time of the server, or the clock on the wall. */
export type By = 'processor' | 'clock'

/**
 * Rates are compared per second of the server's processor time: what a core does that has nothing else to do. Neither a
 * slow client nor other work on the machine then passes for a slow server. Where the server was busy all the time, as it
 * is with a core of its own, both are the same.
 */
function comparable (column: Column, sample: Sample, by: By): number {
  return column.rate && by === 'processor' ? sample.value / sample.busy : sample.value
}

export function figure (column: Column, id: string, by: By = 'processor'): number | null {
  const samples = column.samples.get(id)
  return samples === undefined ? null : median(samples.map((sample) => comparable(column, sample, by)))
}

export function detail (column: Column, id: string, name: 'busy' | 'p50' | 'p99'): number | null {
  const values = column.samples.get(id)!.flatMap((sample) => sample[name] ?? [])
  return values.length === 0 ? null : median(values)
}

/** How many times the other's figure: the median of the ratios of each round. */
export function ratio (column: Column, id: string, other: string, by: By = 'processor'): number | null {
  const samples = column.samples.get(id)
  const others = column.samples.get(other)
  if (samples === undefined || others === undefined) return null
  return median(samples.map((sample, round) => comparable(column, sample, by) / comparable(column, others[round], by)))
}
