// The client's end of one connection: what it has sent, and what it has got as far as anybody asks.

import { once } from 'node:events'
import net from 'node:net'
import type { Duplex } from 'node:stream'
import tls from 'node:tls'
import { setImmediate as immediate, setTimeout as sleep } from 'node:timers/promises'
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

/** How much of what has come is kept, to look for the marks of responses. */
const KEPT = 4096

const START = 'HTTP/1.1 '

export class Connection {
  readonly socket: Duplex
  /** Settles when the server has ended its side, or the connection is gone. */
  readonly ended: Promise<void>
  isEnded = false
  received = 0
  /** Heads of responses that have come, as far as a body does not look like one. */
  responses = 0
  private tail = ''
  private readonly watchers = new Set<() => void>()

  constructor (socket: Duplex) {
    this.socket = socket
    socket.on('error', () => {})
    this.ended = new Promise((resolve) => {
      const end = (): void => {
        this.isEnded = true
        this.wake()
        resolve()
      }
      socket.on('end', end).on('close', end)
    })
  }

  /** From here on the client reads; before that it is stuck. */
  read (): this {
    if (this.socket.listenerCount('data') > 0) return this
    this.socket.on('data', (chunk: Buffer) => {
      this.received += chunk.length
      this.countResponses(chunk)
      this.tail = (this.tail + chunk.toString('latin1', Math.max(0, chunk.length - KEPT))).slice(-KEPT)
      this.wake()
    })
    return this
  }

  send (bytes: string): void {
    if (!this.socket.destroyed && !this.socket.writableEnded) this.socket.write(bytes, 'latin1')
  }

  /** Sends in so many parts, with a moment between them. */
  async sendInParts (bytes: string, parts: number): Promise<void> {
    const size = Math.ceil(bytes.length / parts)
    for (let at = 0; at < bytes.length; at += size) {
      if (at > 0) await immediate()
      this.send(bytes.slice(at, at + size))
    }
  }

  /** Resolves to whether the mark has come, once it has or nothing more will. */
  async sees (mark: string): Promise<boolean> {
    while (!this.tail.includes(mark) && !this.isEnded) await new Promise<void>((resolve) => { this.watchers.add(resolve) })
    return this.tail.includes(mark)
  }

  half (): void {
    if (!this.socket.destroyed) this.socket.end()
  }

  reset (): void {
    const socket = this.socket as net.Socket
    // Neither TLS nor Unix sockets can, nor who has ended his side.
    const can = typeof socket.resetAndDestroy === 'function' && !('encrypted' in socket) && socket.remoteFamily !== undefined && !socket.writableEnded
    if (can && !socket.destroyed) socket.resetAndDestroy()
    else socket.destroy()
  }

  /** Gone without reading what has come. */
  leave (): void {
    this.socket.destroy()
  }

  private countResponses (chunk: Buffer): void {
    // One that lies in two reads.
    const across = this.tail.slice(1 - START.length) + chunk.toString('latin1', 0, START.length - 1)
    if (across.includes(START)) this.responses++
    for (let at = chunk.indexOf(START); at >= 0; at = chunk.indexOf(START, at + 1)) this.responses++
  }

  private wake (): void {
    for (const wake of this.watchers) wake()
    this.watchers.clear()
  }
}

/** Milliseconds; a fraction stands for a turn of the event loop. */
export async function pause (delay: number): Promise<void> {
  if (delay >= 1) await sleep(delay)
  else if (delay > 0) await immediate()
}
