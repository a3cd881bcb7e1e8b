// The connection of a hostile client. It sends anything, may not read, and can leave in different ways.

import { once } from 'node:events'
import net from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import tls from 'node:tls'
import type { Address, Transport } from './messages.ts'

export const WAYS_TO_LEAVE = ['destroy', 'reset', 'end'] as const
export type WayToLeave = typeof WAYS_TO_LEAVE[number]

/** If no byte is transferred for so many milliseconds, a socket is full or a state is reached. */
const QUIET_TIME = 120
/** So few bytes of all clients together do not count as a transfer. */
const NEGLIGIBLE = 4096
/** How many bytes a client sends at most to fill a socket. */
const FILL_LIMIT = 16 * 1024 * 1024
/** Time limit for an answer that must arrive, in milliseconds. */
const ANSWER_LIMIT = 10_000

const BLOCK = Buffer.from(`10000\r\n${'x'.repeat(0x10000)}\r\n`)

/** What the hunt needs to know of a hostile client. */
export interface HostileClient {
  /** Grows while bytes are transferred. */
  readonly progress: number
  leave (how: WayToLeave): Promise<void>
}

export class Connection implements HostileClient {
  readonly socket: net.Socket
  /** The beginning of what was received. */
  received = ''
  /** Resolves when the server has ended its side, or the connection has closed. */
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

  /** Begins to read. Only the beginning is kept. */
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

  /** Waits until this text has been received. */
  async waitFor (text: string): Promise<void> {
    let isLate = false
    const limit = setTimeout(() => {
      isLate = true
      this.wake()
    }, ANSWER_LIMIT)
    while (!this.received.includes(text)) {
      if (this.socket.destroyed || isLate) throw new Error(`waited for ${JSON.stringify(text)}, received ${JSON.stringify(this.received.slice(0, 200))}`)
      await new Promise<void>((resolve) => { this.wake = resolve })
    }
    clearTimeout(limit)
  }

  /** Sends until the buffers are full. @returns false if the limit was reached before that */
  async fill (block: Buffer | string = BLOCK): Promise<boolean> {
    const { socket } = this
    const wake = (): void => this.wake()
    socket.on('drain', wake)
    while (!socket.destroyed && socket.bytesWritten < FILL_LIMIT) {
      if (socket.write(block)) continue
      for (let before = -1; socket.writableNeedDrain && !socket.destroyed && before !== this.progress;) {
        before = this.progress
        await Promise.race([new Promise<void>((resolve) => { this.wake = resolve }), sleep(QUIET_TIME)])
      }
      if (socket.writableNeedDrain) break
    }
    socket.removeListener('drain', wake)
    return socket.writableNeedDrain
  }

  get progress (): number {
    return this.socket.bytesWritten - this.socket.writableLength + this.bytesReceived
  }

  async leave (how: WayToLeave): Promise<void> {
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

/** Waits until hardly any bytes are transferred. */
export async function waitUntilQuiet (clients: HostileClient[]): Promise<void> {
  const progress = (): number => clients.reduce((sum, client) => sum + client.progress, 0)
  for (let before = -Infinity, now = progress(); now - before > NEGLIGIBLE; now = progress()) {
    before = now
    await sleep(QUIET_TIME)
  }
}

function isResettable (socket: net.Socket): boolean {
  return !(socket instanceof tls.TLSSocket) && socket.remoteAddress !== undefined
}
