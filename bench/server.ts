// The server process of a peer. It is started on the core of the servers, measured from outside, and killed in the end. A
// peer that is no program of this benchmark has a launcher, which tells the process to measure.

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
  /** The process that is measured: that of the peer, or the one that it has launched. */
  private pid: number
  private readonly lines: AsyncIterator<string>

  private constructor (peer: Peer, child: ChildProcess) {
    this.peer = peer
    this.child = child
    this.pid = child.pid!
    this.lines = createInterface(child.stdout!)[Symbol.asyncIterator]()
  }

  /** @param role whose core it runs on */
  static async start (peer: Peer, role: 'server' | 'client' = 'server'): Promise<Server> {
    const [file, ...args] = pinned(peer.command, role)
    const server = new Server(peer, spawn(file, args, { stdio: ['pipe', 'pipe', 'inherit'] }))
    const { port, pid = server.pid } = await server.readAnswer()
    server.port = port
    server.pid = pid
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

  /** Collects garbage. @returns what the peer has counted, if it counts anything */
  async collect (): Promise<{ relayed?: number, startUp?: number }> {
    this.child.stdin!.write('collect\n')
    return this.readAnswer()
  }

  /** Closes the app of the peer. @returns how long that took */
  async close (): Promise<{ seconds: number }> {
    this.child.stdin!.write('close\n')
    return this.readAnswer()
  }

  /** Collects garbage. @returns KiB of resident memory after that */
  async measureMemory (): Promise<number> {
    await this.collect()
    const status = readFileSync(`/proc/${this.pid}/status`, 'latin1')
    return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)![1])
  }

  /** Seconds of processor time so far, of all threads. */
  get processorTime (): number {
    const tasks = `/proc/${this.pid}/task`
    let sum = 0
    for (const task of readdirSync(tasks)) sum += Number(readFileSync(`${tasks}/${task}/schedstat`, 'latin1').split(' ')[0])
    return sum / 1e9
  }

  async stop (): Promise<void> {
    const { child, pid } = this
    const ended = once(child, 'exit')
    if (pid === child.pid) child.kill('SIGKILL')
    else child.stdin!.end() // the launcher ends what it has launched
    await ended
  }
}
