// A hostile client's connection: it sends what it likes, reads or does not, and leaves as it likes.

import { once } from 'node:events'
import net from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import tls from 'node:tls'
import type { Address, Transport } from './messages.ts'

export const LEAVES = ['destroy', 'reset', 'end'] as const
export type Leave = typeof LEAVES[number]

/** Nothing moves for so long: a socket is full, or a state is reached, in milliseconds. */
const STILL = 120
/** Bytes of all clients together that count as nothing. */
const NOW_AND_THEN = 4096
/** A client that means to fill a socket stops here. */
const FILL_LIMIT = 16 * 1024 * 1024
/** For an answer that must come. */
const ANSWER_LIMIT = 10_000

const BLOCK = Buffer.from(`10000\r\n${'x'.repeat(0x10000)}\r\n`)

/** What the hunt needs of whatever is hostile. */
export interface Hostile {
  /** Grows while something moves. */
  readonly progress: number
  leave (how: Leave): Promise<void>
}

export class Connection implements Hostile {
  readonly socket: net.Socket
  /** The beginning of what has come. */
  received = ''
  /** Settles when the server has ended its side, or the connection is gone. */
  readonly ended: Promise<void>
  private bytesReceived = 0
  private wake = (): void => {}

  private constructor (socket: net.Socket) {
    this.socket = socket
    socket.on('error', () => {}).on('close', () => this.wake())
    this.ended = new Promise((resolve) => { socket.on('end', resolve).on('close', () => resolve()) })
  }

  static async open (address: Address, transport: Transport): Promise<Connection> {
    const options = { ...address, allowHalfOpen: true, noDelay: true }
    const socket = transport === 'tls' ? tls.connect({ ...options, rejectUnauthorized: false }) : net.connect(options)
    await once(socket, transport === 'tls' ? 'secureConnect' : 'connect')
    return new Connection(socket)
  }

  /** Reads, and drops what comes. */
  read (): this {
    this.socket.on('data', (chunk: Buffer) => {
      this.bytesReceived += chunk.length
      if (this.received.length < 4096) this.received += chunk.toString('latin1', 0, 4096)
      this.wake()
    })
    return this
  }

  send (text: string): this {
    this.socket.write(text, 'latin1')
    return this
  }

  /** Waits until this text has come. */
  async until (text: string): Promise<void> {
    let isLate = false
    const limit = setTimeout(() => {
      isLate = true
      this.wake()
    }, ANSWER_LIMIT)
    while (!this.received.includes(text)) {
      if (this.socket.destroyed || isLate) throw new Error(`waited for ${JSON.stringify(text)}, got ${JSON.stringify(this.received.slice(0, 200))}`)
      await new Promise<void>((resolve) => { this.wake = resolve })
    }
    clearTimeout(limit)
  }

  /** Sends until the server takes no more. @returns whether it came so far */
  async fill (block: Buffer | string = BLOCK): Promise<boolean> {
    const { socket } = this
    const wake = (): void => this.wake()
    socket.on('drain', wake)
    while (!socket.destroyed && socket.bytesWritten < FILL_LIMIT) {
      if (socket.write(block)) continue
      for (let before = -1; socket.writableNeedDrain && !socket.destroyed && before !== this.progress;) {
        before = this.progress
        await Promise.race([new Promise<void>((resolve) => { this.wake = resolve }), sleep(STILL)])
      }
      if (socket.writableNeedDrain) break
    }
    socket.removeListener('drain', wake)
    return socket.writableNeedDrain
  }

  get progress (): number {
    return this.socket.bytesWritten - this.socket.writableLength + this.bytesReceived
  }

  async leave (how: Leave): Promise<void> {
    const { socket } = this
    if (socket.destroyed) return
    const closed = once(socket, 'close').catch(() => {})
    if (how === 'reset' && isResettable(socket)) {
      socket.resetAndDestroy()
    } else {
      if (how === 'end') {
        socket.end()
        await sleep(50)
      }
      socket.destroy()
    }
    await closed
  }
}

/** Returns when nothing has moved for a while, but for a byte now and then. */
export async function untilStill (clients: Hostile[]): Promise<void> {
  const progress = (): number => clients.reduce((sum, client) => sum + client.progress, 0)
  for (let before = -Infinity, now = progress(); now - before > NOW_AND_THEN; now = progress()) {
    before = now
    await sleep(STILL)
  }
}

function isResettable (socket: net.Socket): boolean {
  return !(socket instanceof tls.TLSSocket) && socket.remoteAddress !== undefined
}
