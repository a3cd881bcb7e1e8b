// Measures a flood of pipelined requests, against the plugin or against Fastify alone.

import { fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { RELEASE } from './bounds.ts'
import { Connection } from './connection.ts'
import type { Flood } from './floods.ts'
import type { AppConfig, FloodConfig, FloodReport } from './messages.ts'
import { ServerProcess } from './server-process.ts'

export interface FloodCost {
  /** Answered requests per second. */
  rate: number
  /** Bytes by which memory in use has grown at the end, after a collection. */
  held: number
  /** Bytes by which RSS has grown at its peak. */
  rss: number
  longestTurn: number
  /** Answers to other clients meanwhile, and the slowest of them in milliseconds. */
  others: number
  slowest: number
  /** Connections that the server has closed. */
  closed: number
  /** Connections or requests that are left after the flood. */
  left: number
  /** What is wrong with the exit of the process, if anything. */
  exitProblem: string | null
}

export async function measureFlood (flood: Flood, kind: AppConfig['kind'], milliseconds: number, seed: number): Promise<FloodCost> {
  const server = await ServerProcess.start({ kind, transport: flood.transport, routesLate: false, slots: 1000, target: 0, connectionTimeout: 0 })
  const config: FloodConfig = { ...flood, address: server.address, milliseconds, seed }
  try {
    await warmUp(server, flood)
    const before = await server.sample()
    await server.peak()
    const flooder = fork(join(__dirname, 'flooder.js'), [JSON.stringify(config)], { execArgv: [] })
    const exited = once(flooder, 'exit')
    const others = new OtherClient()
    const polling = others.poll(server, flood)
    const start = performance.now()
    const [report] = await Promise.race([once(flooder, 'message'), exited.then(() => { throw new Error('the flooder process failed') })]) as [FloodReport]
    const peak = await server.peak()
    const seconds = (performance.now() - start) / 1000 // a server with a blocked loop answers late, so the time is measured here
    const after = await server.sample()
    others.isStopped = true
    await polling
    flooder.send({})
    await exited
    const left = kind === 'plain' ? 0 : await countLeft(server)
    return {
      rate: (peak.answered - before.answered - others.answered) / seconds,
      held: after.memory - before.memory,
      rss: peak.rss - before.rss,
      longestTurn: peak.longestTurn,
      others: others.answered,
      slowest: others.slowest,
      closed: report.closed,
      left,
      exitProblem: kind === 'plain' ? null : await server.close()
    }
  } finally {
    await server.kill()
  }
}

const ORDINARY_REQUEST = 'GET /ordinary HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n'

/** Number of requests after which code is compiled. */
const WARM_UP = 200

async function warmUp (server: ServerProcess, { transport, requests, first }: Flood): Promise<void> {
  const connection = await Connection.open(server.address, transport)
  const all = [first, ...Array.from({ length: WARM_UP }, (_, i) => requests[i % requests.length])]
  await connection.read().send(all.join('') + ORDINARY_REQUEST).ended
  await connection.leave('destroy')
}

/** Waits until the server has no connections and requests. @returns how many are left at the time limit */
async function countLeft (server: ServerProcess): Promise<number> {
  for (const deadline = Date.now() + RELEASE; ;) {
    const { connections, inProgress } = await server.sample()
    if ((connections === 0 && inProgress <= 0) || Date.now() > deadline) return Math.max(connections, inProgress)
    await sleep(50)
  }
}

/** A client that is not hostile. It sends a request now and then, each on a new connection. */
class OtherClient {
  answered = 0
  slowest = 0
  isStopped = false

  async poll (server: ServerProcess, { transport }: Flood): Promise<void> {
    while (!this.isStopped) {
      const start = performance.now()
      const connection = await Connection.open(server.address, transport)
      // A request without an answer counts with the time it has waited.
      await connection.read().send(ORDINARY_REQUEST).waitFor('ok').then(() => { this.answered++ }, () => {})
      this.slowest = Math.max(this.slowest, performance.now() - start)
      await connection.leave('destroy')
      await sleep(20)
    }
  }
}
