// A flood of requests on pipelined connections: against the plugin and against Fastify alone, at the same time.

import { fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { RELEASE } from './bounds.ts'
import { Connection } from './connection.ts'
import type { Flood } from './floods.ts'
import type { AppConfig, FloodConfig, FloodReport } from './messages.ts'
import { ServerProcess } from './server-process.ts'

export interface Flooded {
  /** Requests answered in a second. */
  rate: number
  /** Bytes more than before: after a collection, in the end; and the highest that the process had from the system. */
  held: number
  rss: number
  longestTurn: number
  /** Answers to others meanwhile, and the slowest of them in milliseconds. */
  others: number
  slowest: number
  closed: number
  left: number
  end: string | null
}

export async function measureFlood (flood: Flood, kind: AppConfig['kind'], milliseconds: number, seed: number): Promise<Flooded> {
  const server = await ServerProcess.start({ kind, transport: flood.transport, deferred: false, slots: 1000, target: 0, connectionTimeout: 0 })
  const config: FloodConfig = { ...flood, address: server.address, milliseconds, seed }
  try {
    await warmUp(server, flood)
    const before = await server.sample()
    await server.peak()
    const flooder = fork(join(__dirname, 'flooder.js'), [JSON.stringify(config)], { execArgv: [] })
    const exited = once(flooder, 'exit')
    const others = new Others()
    const asking = others.ask(server, flood)
    const begun = performance.now()
    const [report] = await Promise.race([once(flooder, 'message'), exited.then(() => { throw new Error('the flood has failed') })]) as [FloodReport]
    const peak = await server.peak()
    const seconds = (performance.now() - begun) / 1000 // a server whose loop is blocked has answered late
    const after = await server.sample()
    others.isOver = true
    await asking
    flooder.send({})
    await exited
    const left = kind === 'plain' ? 0 : await connectionsLeft(server)
    return {
      rate: (peak.answered - before.answered - others.answered) / seconds,
      held: after.memory - before.memory,
      rss: peak.rss - before.rss,
      longestTurn: peak.longestTurn,
      others: others.answered,
      slowest: others.slowest,
      closed: report.closed,
      left,
      end: kind === 'plain' ? null : await server.close()
    }
  } finally {
    await server.kill()
  }
}

const ASK = 'GET /ordinary HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n'

/** Code is compiled for a while: so many requests, one after the other. */
const WARM_UP = 200

async function warmUp (server: ServerProcess, { transport, requests, first }: Flood): Promise<void> {
  const connection = await Connection.open(server.address, transport)
  const all = [first, ...Array.from({ length: WARM_UP }, (_, i) => requests[i % requests.length])]
  await connection.read().send(all.join('') + ASK).ended
  await connection.leave('destroy')
}

async function connectionsLeft (server: ServerProcess): Promise<number> {
  for (const deadline = Date.now() + RELEASE; ;) {
    const { connections, inProgress } = await server.sample()
    if ((connections === 0 && inProgress <= 0) || Date.now() > deadline) return Math.max(connections, inProgress)
    await sleep(50)
  }
}

/** A client that is not hostile: it asks now and then, on a connection of its own. */
class Others {
  answered = 0
  slowest = 0
  isOver = false

  async ask (server: ServerProcess, { transport }: Flood): Promise<void> {
    while (!this.isOver) {
      const begun = performance.now()
      const connection = await Connection.open(server.address, transport)
      // One that is not answered within the limit counts by the time it has waited.
      await connection.read().send(ASK).until('ok').then(() => { this.answered++ }, () => {})
      this.slowest = Math.max(this.slowest, performance.now() - begun)
      await connection.leave('destroy')
      await sleep(20)
    }
  }
}
