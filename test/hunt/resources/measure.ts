// Measures one state: clients enter it, stay there, and leave. After that, all their resources must be free again.

import { setTimeout as sleep } from 'node:timers/promises'
import type { Random } from '../../support/random.ts'
import { DESCRIPTOR_NOISE, IDLE_TIMEOUT, RELEASE } from './bounds.ts'
import { type HostileClient, WAYS_TO_LEAVE, waitUntilQuiet } from './connection.ts'
import type { Sample } from './messages.ts'
import { ServerProcess } from './server-process.ts'
import { takeSlots } from './slots.ts'
import type { Ending, State } from './states.ts'
import { listenTarget } from './targets.ts'

/** The cost of one client. */
export interface Cost {
  clients: number
  /** Bytes of heap and buffers for each client. */
  memory: number
  /** Bytes of RSS for each client. */
  rss: number
  /** Milliseconds, for all clients together. */
  longestTurn: number
  /** Requests in progress, and how many are expected. */
  inProgress: number
  expected: number
}

/** What has not been released after all clients have left. */
export interface Leftovers {
  descriptors: number
  requests: number
  connections: number
  slots: number
  /** Milliseconds until everything was released. */
  releasedAfter: number
  /** What is wrong with the exit of the process after `app.close()`, if anything. */
  exitProblem: string | null
}

const NOTHING_LEFT: Leftovers = { descriptors: 0, requests: 0, connections: 0, slots: 0, releasedAfter: 0, exitProblem: null }

export type Measured = Cost & { left: Leftovers }

/** How long to wait until the resources of the first client are free, in milliseconds. */
const WARM_UP = 1500
const PLAIN_WARM_UP = 300
/** How many clients connect at the same time. */
const AT_ONCE = 10
/** How long a busy server may take until all requests are in progress, in milliseconds. */
const ENTER_LIMIT = 3000

/** Measures the app with the plugin, in a new process. */
export async function measure (state: State, clients: number, ending: Ending, random: Random): Promise<Measured> {
  const target = await listenTarget(state.target, random)
  // One more for the client of the warm-up. If the server does not notice that it has left, it keeps its slots until the timeout.
  const slots = (clients + 1) * Math.max(1, state.slots)
  const server = await ServerProcess.start({
    kind: 'duplex',
    transport: state.transport,
    routesLate: state.routesLate,
    slots,
    target: target.port,
    // The server must notice without it that clients leave, except in the excluded states.
    connectionTimeout: ending === 'stay' ? IDLE_TIMEOUT : state.connectionTimeout
  })
  const hostile: HostileClient[] = []
  try {
    const before = await firstSample(state, server, random, WARM_UP)
    const cost = await enterAll(state, server, before, clients, random, hostile)
    if (ending === 'close') return { ...cost, left: { ...NOTHING_LEFT, exitProblem: await server.close() } }
    const start = Date.now()
    const deadline = start + RELEASE
    if (ending === 'leave') {
      await leaveAll(hostile, random)
      if (state.releasesHandlers) await server.release()
    }
    const after = await waitForRelease(server, before, deadline, ending)
    const releasedAfter = Date.now() - start
    const taken = await takeSlots(server, state.transport, slots, deadline)
    await server.release()
    if (ending === 'stay') await leaveAll(hostile, random)
    const left: Leftovers = {
      descriptors: ending === 'stay' ? 0 : Math.max(0, after.handles - before.handles, (after.descriptors ?? 0) - (before.descriptors ?? 0) - DESCRIPTOR_NOISE),
      requests: after.inProgress,
      connections: ending === 'stay' ? 0 : after.connections,
      slots: slots - taken,
      releasedAfter,
      exitProblem: await server.close()
    }
    return { ...cost, longestTurn: Math.max(cost.longestTurn, after.longestTurn), left }
  } finally {
    await Promise.all(hostile.map((client) => client.leave('destroy')))
    target.close()
    await server.kill()
  }
}

async function leaveAll (clients: HostileClient[], random: Random): Promise<void> {
  await Promise.all(clients.map((client) => client.leave(random.pick(WAYS_TO_LEAVE))))
  await sleep(50)
}

/** Servers of Fastify alone. States share them where possible, because only the cost of the clients is measured. */
export class PlainServers {
  private readonly servers = new Map<string, { server: ServerProcess, target: { close: () => void } }>()

  async measure (state: State, clients: number, random: Random): Promise<Cost> {
    const key = `${state.transport} ${state.routesLate} ${state.target}`
    let found = this.servers.get(key)
    if (found === undefined) {
      const target = await listenTarget(state.target, random)
      found = { target, server: await ServerProcess.start({ kind: 'plain', transport: state.transport, routesLate: state.routesLate, slots: 0, target: target.port, connectionTimeout: 0 }) }
      this.servers.set(key, found)
    }
    const hostile: HostileClient[] = []
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

/** Warms up with one client, and takes the sample that later ones are compared with. */
async function firstSample (state: State, server: ServerProcess, random: Random, limit: number): Promise<Sample> {
  const { connections: others } = await server.sample()
  const first = await state.enter(server.address, random)
  await waitUntilQuiet([first])
  await first.leave('destroy')
  await server.release()
  // If its resources are not released, that will show with the other clients, too.
  let sample = await server.sample()
  for (const end = Date.now() + limit; Date.now() < end && sample.connections > others;) {
    await sleep(20)
    sample = await server.sample()
  }
  return sample
}

async function enterAll (state: State, server: ServerProcess, before: Sample, clients: number, random: Random, entered: HostileClient[]): Promise<Cost> {
  for (let left = clients; left > 0; left -= AT_ONCE) {
    const batch = Array.from({ length: Math.min(left, AT_ONCE) }, () => state.enter(server.address, random))
    for (const result of await Promise.allSettled(batch)) {
      if (result.status === 'rejected') throw result.reason
      entered.push(result.value)
    }
  }
  const expected = clients * state.inProgress
  let during: Sample
  let longestTurn = 0
  const end = Date.now() + ENTER_LIMIT
  do {
    await waitUntilQuiet(entered)
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

/** Waits until all resources of the clients are released, or the deadline has passed. Clients that stay keep their connections. */
async function waitForRelease (server: ServerProcess, before: Sample, deadline: number, ending: Ending): Promise<Sample> {
  let longestTurn = 0
  for (;;) {
    const sample = await server.sample()
    longestTurn = Math.max(longestTurn, sample.longestTurn)
    const isFree = sample.inProgress <= 0 && (ending === 'stay' || (sample.connections === 0 && sample.handles <= before.handles))
    if (isFree || Date.now() > deadline) return { ...sample, longestTurn }
    await sleep(50)
  }
}
