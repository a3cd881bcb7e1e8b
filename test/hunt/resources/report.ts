// Compares measurements with their bounds, and prints them.

import { BOUNDS } from './bounds.ts'
import type { FloodCost } from './flood.ts'
import type { Flood } from './floods.ts'
import type { Cost, Measured } from './measure.ts'
import type { State } from './states.ts'

const KIB = 1024
const MIB = 1024 * KIB

/** The highest values of one state in all rounds. */
export interface StateRow { state: State, measured: Measured, plain: Cost | null }

export interface FloodRow { flood: Flood, duplex: FloodCost, plain: FloodCost }

/** @returns the problems of a state */
export function judgeState ({ state, measured, plain }: StateRow): string[] {
  const { clients, memory, rss, longestTurn, inProgress, expected, left } = measured
  const memoryBound = Math.max(state.memory + BOUNDS.processMemory / clients, BOUNDS.timesPlain * (plain?.memory ?? 0))
  const turnBound = Math.max(BOUNDS.turn, BOUNDS.timesPlain * (plain?.longestTurn ?? 0))
  return problemsOf({
    [`the state was not reached: ${inProgress} of ${expected} requests were in progress`]: inProgress < expected,
    [`${kib(memory)} KiB of memory per client, more than ${kib(memoryBound)}`]: memory > memoryBound,
    [`RSS has grown by ${mib(rss * clients)} MiB`]: rss * clients > BOUNDS.processGrowth + clients * memoryBound,
    [`a turn of the event loop took ${round(longestTurn)} ms, longer than ${round(turnBound)}`]: longestTurn > turnBound,
    [`${left.descriptors} descriptors were not released`]: left.descriptors > 0,
    [`${left.connections} connections were not closed`]: left.connections > 0,
    [`${left.requests} requests did not end`]: left.requests > 0,
    [`${left.slots} slots of maxExchanges were not released`]: left.slots > 0,
    [`${left.exitProblem}`]: left.exitProblem !== null && !(isHttp2Below26(state) && left.exitProblem.startsWith('app.close()'))
  })
}

function isHttp2Below26 ({ name }: State): boolean {
  return name.startsWith('HTTP/2') && Number.parseInt(process.versions.node) < 26
}

export function judgeFlood ({ flood, duplex, plain }: FloodRow): string[] {
  const held = Math.max(BOUNDS.floodHeld + flood.connections * BOUNDS.floodHeldEach, BOUNDS.timesPlain * plain.held)
  const rss = Math.max(BOUNDS.floodGrowth, BOUNDS.timesPlain * plain.rss)
  const turn = Math.max(BOUNDS.floodTurn, BOUNDS.timesPlain * plain.longestTurn)
  const slowest = Math.max(BOUNDS.othersAnswered, BOUNDS.timesPlain * plain.slowest)
  return problemsOf({
    [`${mib(duplex.held)} MiB of memory are in use after the flood, more than ${mib(held)}`]: duplex.held > held,
    [`RSS has grown by ${mib(duplex.rss)} MiB, more than ${mib(rss)}`]: duplex.rss > rss,
    [`a turn of the event loop took ${round(duplex.longestTurn)} ms, longer than ${round(turn)}`]: duplex.longestTurn > turn,
    [`${duplex.rate.toFixed(0)} requests answered per second, ${plain.rate.toFixed(0)} by Fastify alone`]: duplex.rate < BOUNDS.floodRate * plain.rate && flood.reads,
    [`other clients waited for ${round(duplex.slowest)} ms, longer than ${round(slowest)}`]: duplex.slowest > slowest,
    [`${duplex.others} answers to other clients`]: duplex.others === 0,
    [`${duplex.closed} connections were closed`]: duplex.closed > 0,
    [`${duplex.left} connections or requests did not end`]: duplex.left > 0,
    [`${duplex.exitProblem}`]: duplex.exitProblem !== null
  })
}

function problemsOf (conditions: Record<string, boolean>): string[] {
  return Object.keys(conditions).filter((problem) => conditions[problem])
}

export function stateTable (rows: StateRow[]): string {
  const head = ['state', 'clients', 'KiB per client', 'plain', 'longest turn, ms', 'plain', 'left: descriptors', 'requests', 'slots', 'released after, ms']
  return table(head, rows.map(({ state, measured: { clients, memory, longestTurn, left }, plain }) => [
    state.name, clients, kib(memory), plain === null ? '-' : kib(plain.memory), round(longestTurn), plain === null ? '-' : round(plain.longestTurn),
    left.descriptors, left.requests, left.slots, left.releasedAfter
  ]))
}

export function floodTable (rows: FloodRow[]): string {
  const head = ['flood', 'requests/s', 'plain', 'memory after it, MiB', 'plain', 'RSS, MiB', 'plain', 'longest turn, ms', 'plain', 'slowest answer to others, ms', 'plain']
  return table(head, rows.map(({ flood, duplex, plain }) => [
    flood.name, round(duplex.rate), plain.closed > 0 ? 'closed' : round(plain.rate), mib(duplex.held), mib(plain.held), mib(duplex.rss), mib(plain.rss),
    round(duplex.longestTurn), round(plain.longestTurn), round(duplex.slowest), round(plain.slowest)
  ]))
}

function table (head: string[], rows: (string | number)[][]): string {
  const line = (cells: (string | number)[]): string => `| ${cells.join(' | ')} |`
  return [line(head), line(head.map((_, i) => i === 0 ? '---' : '--:')), ...rows.map(line)].join('\n')
}

function kib (bytes: number): string {
  return (bytes / KIB).toFixed(0)
}

function mib (bytes: number): string {
  return (bytes / MIB).toFixed(1)
}

function round (value: number): string {
  return Math.max(0, value).toFixed(0)
}
