// The client's end of one connection. It keeps only what the checks need of what it receives.

import { once } from 'node:events'
import net from 'node:net'
import type { Duplex } from 'node:stream'
import tls from 'node:tls'
import { setImmediate as immediate, setTimeout as sleep } from 'node:timers/promises'
import { endOf } from '../../support/ended.ts'
import type { Transport } from './kinds.ts'

/** Opens a connection to the app of a child. */
export type Dial = () => Promise<Duplex>

export function dialer (transport: Transport, address: net.NetConnectOpts): Dial {
  return async () => {
    const options = { ...address, allowHalfOpen: true }
    const secure = transport === 'tls' || transport === 'http/1 of h2' || transport === 'h2'
    const socket = secure
      ? tls.connect({ ...options, rejectUnauthorized: false, ALPNProtocols: [transport === 'h2' ? 'h2' : 'http/1.1'] })
      : net.connect(options)
    try {
      await once(socket, secure ? 'secureConnect' : 'connect')
    } finally {
      socket.on('error', () => {})
    }
    return socket.setNoDelay(true)
  }
}

/** How many of the last characters received are kept, to look for marks of responses. */
const TAIL_SIZE = 4096

const START = 'HTTP/1.1 '

export class Connection {
  readonly socket: Duplex
  /** Resolves when the server has ended its side, or the connection has closed. */
  readonly ended: Promise<void>
  isEnded = false
  received = 0
  /** Number of response heads received. Content that looks like a head counts, too. */
  responses = 0
  private tail = ''
  private readonly watchers = new Set<() => void>()

  constructor (socket: Duplex) {
    this.socket = socket
    socket.on('error', () => {})
    this.ended = endOf(socket, () => {
      this.isEnded = true
      this.wake()
    })
  }

  /** Begins to read. Until then, the client lets its buffers fill. */
  read (): this {
    if (this.socket.listenerCount('data') > 0) return this
    this.socket.on('data', (chunk: Buffer) => {
      this.received += chunk.length
      this.countResponses(chunk)
      this.tail = (this.tail + chunk.toString('latin1', Math.max(0, chunk.length - TAIL_SIZE))).slice(-TAIL_SIZE)
      this.wake()
    })
    return this
  }

  send (bytes: string): void {
    if (!this.socket.destroyed && !this.socket.writableEnded) this.socket.write(bytes, 'latin1')
  }

  /** Sends in so many writes, each in another turn of the event loop. */
  async sendInParts (bytes: string, parts: number): Promise<void> {
    const size = Math.ceil(bytes.length / parts)
    for (let at = 0; at < bytes.length; at += size) {
      if (at > 0) await immediate()
      this.send(bytes.slice(at, at + size))
    }
  }

  /** Waits for a mark in what is received. @returns false if the connection has ended without it */
  async receives (mark: string): Promise<boolean> {
    while (!this.tail.includes(mark) && !this.isEnded) await new Promise<void>((resolve) => { this.watchers.add(resolve) })
    return this.tail.includes(mark)
  }

  endSide (): void {
    if (!this.socket.destroyed) this.socket.end()
  }

  reset (): void {
    const socket = this.socket as net.Socket
    // TLS and Unix sockets cannot be reset, and neither can a socket that has ended its side.
    const canReset = typeof socket.resetAndDestroy === 'function' && !('encrypted' in socket) && socket.remoteFamily !== undefined && !socket.writableEnded
    if (canReset && !socket.destroyed) socket.resetAndDestroy()
    else socket.destroy()
  }

  /** Closes the connection without reading what is still to be read. */
  leave (): void {
    this.socket.destroy()
  }

  private countResponses (chunk: Buffer): void {
    // A head that is split between two reads.
    const across = this.tail.slice(1 - START.length) + chunk.toString('latin1', 0, START.length - 1)
    if (across.includes(START)) this.responses++
    for (let at = chunk.indexOf(START); at >= 0; at = chunk.indexOf(START, at + 1)) this.responses++
  }

  private wake (): void {
    for (const wake of this.watchers) wake()
    this.watchers.clear()
  }
}

/** @param delay milliseconds; a fraction stands for one turn of the event loop */
export async function pause (delay: number): Promise<void> {
  if (delay >= 1) await sleep(delay)
  else if (delay > 0) await immediate()
}
