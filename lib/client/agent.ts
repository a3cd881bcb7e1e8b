// The pool of connections: for each origin a bounded number, of which the idle ones are used again, the last one first. Calls that
// find none free wait in turn.

import type { Agent as PublicAgent, AgentOptions } from '../../types/client.d.ts'
import { AbortedError, AgentClosedError, ConnectError, OptionError, ServerTimeoutError } from '../errors.ts'
import { MAX_TIMEOUT } from '../options.ts'
import type { Call } from './call.ts'
import { ClientConnection, type ConnectionOwner, type ConnectionTimeouts, type Job } from './connection.ts'
import { type Origin, connect } from './origin.ts'

export const DEFAULT_AGENT_OPTIONS = Object.freeze({ maxConnections: 256, idleTimeout: 4000, connectTimeout: 10_000 })

type Options = AgentOptions & Required<Omit<AgentOptions, 'tls'>>

export class Agent implements PublicAgent {
  private readonly options: Options
  private readonly pools = new Map<string, Pool>()
  private isClosed = false

  constructor (options: AgentOptions = {}) {
    for (const [name, value] of Object.entries(options)) {
      if (name === 'tls') continue
      if (!Object.hasOwn(DEFAULT_AGENT_OPTIONS, name)) throw new OptionError(name, 'there is no such option')
      if (value === undefined) continue
      if (name === 'maxConnections' && value === Infinity) continue
      if (!Number.isInteger(value) || value < 1 || value > MAX_TIMEOUT) throw new OptionError(name, `expected a whole number from 1 to ${MAX_TIMEOUT}`)
    }
    const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined))
    this.options = { ...DEFAULT_AGENT_OPTIONS, ...given }
  }

  /** Sends a call to a server. */
  send (call: Call, origin: Origin, timeouts: ConnectionTimeouts): void {
    if (this.isClosed) {
      call.fail(new AgentClosedError())
      return
    }
    let pool = this.pools.get(origin.key)
    if (pool === undefined) this.pools.set(origin.key, pool = new Pool(origin, this.options, () => this.pools.delete(origin.key)))
    pool.send({ call, timeouts })
  }

  get connections (): number {
    let count = 0
    for (const { size } of this.pools.values()) count += size
    return count
  }

  close (): void {
    this.isClosed = true
    for (const pool of [...this.pools.values()]) pool.close()
  }
}

class Pool implements ConnectionOwner {
  private readonly origin: Origin
  private readonly options: Options
  private readonly onEmpty: () => void
  private readonly idle: ClientConnection[] = []
  private readonly waiting = new Set<Job>() // in turn
  private isClosed = false
  /** Connections, with those that are being opened. */
  size = 0

  constructor (origin: Origin, options: Options, onEmpty: () => void) {
    this.origin = origin
    this.options = options
    this.onEmpty = onEmpty
  }

  send (job: Job): void {
    const connection = this.idle.pop()
    if (connection !== undefined) connection.start(job)
    else if (this.size < this.options.maxConnections) this.open(job)
    else this.wait(job)
  }

  private wait (job: Job): void {
    this.waiting.add(job)
    job.call.on('close', () => this.waiting.delete(job))
  }

  close (): void {
    this.isClosed = true
    for (const connection of this.idle.splice(0)) connection.close()
    for (const { call } of this.waiting) call.fail(new AgentClosedError())
    this.waiting.clear()
  }

  private open (job: Job): void {
    const { origin, options } = this
    const { call } = job
    const socket = connect(origin, options)
    this.size++
    const fail = (error: Error): void => {
      settle()
      socket.destroy()
      this.onGone()
      call.fail(error)
    }
    // If several addresses were tried, there is no message, but a code.
    const onError = (error: NodeJS.ErrnoException): void => fail(new ConnectError(origin.key, error.message || error.code, { cause: error }))
    const timer = setTimeout(() => fail(new ServerTimeoutError('accepted a connection', options.connectTimeout)), options.connectTimeout)
    const onClose = (): void => fail(new AbortedError())
    const event = origin.isSecure ? 'secureConnect' : 'connect'
    const onConnect = (): void => {
      settle()
      new ClientConnection(socket, this).start(job)
    }
    const settle = (): void => {
      clearTimeout(timer)
      socket.removeListener('error', onError).removeListener(event, onConnect)
      call.removeListener('close', onClose)
    }
    socket.on('error', onError).on(event, onConnect)
    call.on('close', onClose)
  }

  onIdle (connection: ClientConnection): void {
    const job = this.nextWaiting()
    if (job !== undefined) {
      connection.start(job)
    } else if (this.isClosed) {
      connection.close()
    } else {
      this.idle.push(connection)
      connection.keep(this.options.idleTimeout)
    }
  }

  onUnusable (connection: ClientConnection): void {
    const index = this.idle.indexOf(connection)
    if (index !== -1) this.idle.splice(index, 1)
    this.onGone()
  }

  private onGone (): void {
    this.size--
    const job = this.nextWaiting()
    if (job !== undefined) this.open(job)
    else if (this.size === 0) this.onEmpty()
  }

  private nextWaiting (): Job | undefined {
    for (const job of this.waiting) {
      this.waiting.delete(job)
      if (!job.call.destroyed) return job // one that was destroyed in this tick is still among them
    }
    return undefined
  }

  retry (job: Job): void {
    this.size--
    this.open(job)
  }
}
