// One state, measured: clients come into it, stay, and leave; then everything they had must be free again.

import { setTimeout as sleep } from 'node:timers/promises'
import type { Random } from '../../support/random.ts'
import { DESCRIPTOR_NOISE, IDLE_TIMEOUT, RELEASE } from './bounds.ts'
import { type Hostile, LEAVES, untilStill } from './connection.ts'
import type { Sample } from './messages.ts'
import { ServerProcess } from './server-process.ts'
import { takeSlots } from './slots.ts'
import type { Ending, State } from './states.ts'
import { listenTarget } from './targets.ts'

/** What one client costs, in bytes: heap and buffers, and what the process has taken from the system. */
export interface Cost {
  clients: number
  memory: number
  rss: number
  /** Milliseconds, of all clients together. */
  longestTurn: number
  /** Requests in progress, and how many there should have been. */
  inProgress: number
  expected: number
}

/** What is left when all clients have left. */
export interface Left {
  descriptors: number
  requests: number
  connections: number
  slots: number
  /** Milliseconds until nothing was. */
  released: number
  /** What keeps the process from its end after `app.close()`, if anything. */
  end: string | null
}

const NOTHING: Left = { descriptors: 0, requests: 0, connections: 0, slots: 0, released: 0, end: null }

export type Measured = Cost & { left: Left }

/** A first client is waited for so long, in milliseconds. */
const WARM_UP = 1500
const PLAIN_WARM_UP = 300
/** So many come at once. */
const AT_ONCE = 10
/** A server that is still busy may take so long to see all requests, in milliseconds. */
const SEEN = 3000

/** With the plugin, in a process of its own. */
export async function measure (state: State, clients: number, ending: Ending, random: Random): Promise<Measured> {
  const target = await listenTarget(state.target, random)
  // One more, of the warm-up: a client that is not seen leaving keeps its own until the timeout.
  const slots = (clients + 1) * Math.max(1, state.slots)
  const server = await ServerProcess.start({
    kind: 'duplex',
    transport: state.transport,
    deferred: state.deferred,
    slots,
    target: target.port,
    // Where clients leave, that must be noticed without it, but for what is excluded.
    connectionTimeout: ending === 'stay' ? IDLE_TIMEOUT : state.connectionTimeout
  })
  const hostile: Hostile[] = []
  try {
    const before = await firstSample(state, server, random, WARM_UP)
    const cost = await enterAll(state, server, before, clients, random, hostile)
    if (ending === 'close') return { ...cost, left: { ...NOTHING, end: await server.close() } }
    const begun = Date.now()
    const deadline = begun + RELEASE
    if (ending === 'leave') {
      await leaveAll(hostile, random)
      if (state.isLetGo) await server.release()
    }
    const after = await untilReleased(server, before, deadline, ending)
    const released = Date.now() - begun
    const taken = await takeSlots(server, state.transport, slots, deadline)
    await server.release()
    if (ending === 'stay') await leaveAll(hostile, random)
    const left: Left = {
      descriptors: ending === 'stay' ? 0 : Math.max(0, after.handles - before.handles, (after.descriptors ?? 0) - (before.descriptors ?? 0) - DESCRIPTOR_NOISE),
      requests: after.inProgress,
      connections: ending === 'stay' ? 0 : after.connections,
      slots: slots - taken,
      released,
      end: await server.close()
    }
    return { ...cost, longestTurn: Math.max(cost.longestTurn, after.longestTurn), left }
  } finally {
    await Promise.all(hostile.map((client) => client.leave('destroy')))
    target.close()
    await server.kill()
  }
}

async function leaveAll (clients: Hostile[], random: Random): Promise<void> {
  await Promise.all(clients.map((client) => client.leave(random.pick(LEAVES))))
  await sleep(50)
}

/** Servers of Fastify alone, one for all states that can share it: nothing is asked of it but what clients cost. */
export class PlainServers {
  private readonly servers = new Map<string, { server: ServerProcess, target: { close: () => void } }>()

  async measure (state: State, clients: number, random: Random): Promise<Cost> {
    const key = `${state.transport} ${state.deferred} ${state.target}`
    let found = this.servers.get(key)
    if (found === undefined) {
      const target = await listenTarget(state.target, random)
      found = { target, server: await ServerProcess.start({ kind: 'plain', transport: state.transport, deferred: state.deferred, slots: 0, target: target.port, connectionTimeout: 0 }) }
      this.servers.set(key, found)
    }
    const hostile: Hostile[] = []
    const before = await firstSample(state, found.server, random, PLAIN_WARM_UP)
    try {
      return await enterAll(state, found.server, before, clients, random, hostile)
    } finally {
      await Promise.all(hostile.map((client) => client.leave('destroy')))
    }
  }

  async close (): Promise<void> {
    for (const { server, target } of this.servers.values()) {
      await server.kill()
      target.close()
    }
  }
}

/** Code is compiled and pools are filled by a first client, which is not counted. */
async function firstSample (state: State, server: ServerProcess, random: Random, patience: number): Promise<Sample> {
  const { connections: others } = await server.sample()
  const first = await state.enter(server.address, random)
  await untilStill([first])
  await first.leave('destroy')
  await server.release()
  // What keeps this one will be seen in the others.
  let sample = await server.sample()
  for (const end = Date.now() + patience; Date.now() < end && sample.connections > others;) {
    await sleep(20)
    sample = await server.sample()
  }
  return sample
}

async function enterAll (state: State, server: ServerProcess, before: Sample, clients: number, random: Random, entered: Hostile[]): Promise<Cost> {
  for (let left = clients; left > 0; left -= AT_ONCE) {
    const some = Array.from({ length: Math.min(left, AT_ONCE) }, () => state.enter(server.address, random))
    for (const result of await Promise.allSettled(some)) {
      if (result.status === 'rejected') throw result.reason
      entered.push(result.value)
    }
  }
  const expected = clients * state.inProgress
  let during: Sample
  let longestTurn = 0
  const end = Date.now() + SEEN
  do {
    await untilStill(entered)
    during = await server.sample()
    longestTurn = Math.max(longestTurn, during.longestTurn)
  } while (during.inProgress - before.inProgress < expected && Date.now() < end)
  return {
    clients,
    memory: (during.memory - before.memory) / clients,
    rss: (during.rss - before.rss) / clients,
    longestTurn,
    inProgress: during.inProgress - before.inProgress,
    expected
  }
}

/** Until nothing is left of the clients, or the limit is reached; of those that stay, nothing but their connections. */
async function untilReleased (server: ServerProcess, before: Sample, deadline: number, ending: Ending): Promise<Sample> {
  let longestTurn = 0
  for (;;) {
    const sample = await server.sample()
    longestTurn = Math.max(longestTurn, sample.longestTurn)
    const isFree = sample.inProgress <= 0 && (ending === 'stay' || (sample.connections === 0 && sample.handles <= before.handles))
    if (isFree || Date.now() > deadline) return { ...sample, longestTurn }
    await sleep(50)
  }
}
