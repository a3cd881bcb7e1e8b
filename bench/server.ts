// The server process of a peer. It is started on the core of the servers, measured from outside, and killed in the end.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, readdirSync } from 'node:fs'
import { createInterface } from 'node:readline'
import type { Target } from './client/connection.ts'
import type { Peer } from './peers.ts'
import { pinned } from './isolation.ts'

export class Server implements Target {
  readonly peer: Peer
  port = 0
  private readonly child: ChildProcess
  private readonly lines: AsyncIterator<string>

  private constructor (peer: Peer, child: ChildProcess) {
    this.peer = peer
    this.child = child
    this.lines = createInterface(child.stdout!)[Symbol.asyncIterator]()
  }

  static async start (peer: Peer): Promise<Server> {
    const [file, ...args] = pinned(peer.command, 'server')
    const server = new Server(peer, spawn(file, args, { stdio: ['pipe', 'pipe', 'inherit'] }))
    server.port = (await server.readAnswer()).port
    return server
  }

  get protocol (): Peer['protocol'] {
    return this.peer.protocol
  }

  private async readAnswer (): Promise<any> {
    const { value, done } = await this.lines.next()
    if (done) throw new Error(`${this.peer.id}: the server process has ended`)
    return JSON.parse(value)
  }

  /** Collects garbage. @returns KiB of resident memory after that */
  async measureMemory (): Promise<number> {
    this.child.stdin!.write('collect\n')
    await this.readAnswer()
    const status = readFileSync(`/proc/${this.child.pid}/status`, 'latin1')
    return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)![1])
  }

  /** Seconds of processor time so far, of all threads. */
  get processorTime (): number {
    const tasks = `/proc/${this.child.pid}/task`
    let sum = 0
    for (const task of readdirSync(tasks)) sum += Number(readFileSync(`${tasks}/${task}/schedstat`, 'latin1').split(' ')[0])
    return sum / 1e9
  }

  async stop (): Promise<void> {
    const ended = once(this.child, 'exit')
    this.child.kill('SIGKILL')
    await ended
  }
}
