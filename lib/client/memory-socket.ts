// Two ends of a connection in memory, which behave like sockets: backpressure, half-close, reset, timeout, addresses.

import { Duplex } from 'node:stream'

/** Where an end of a connection says it is. */
export interface Address {
  address: string
  port: number
}

/** An error of the system, as sockets have them. */
function systemError (code: 'ECONNRESET' | 'EPIPE', syscall: string): Error {
  return Object.assign(new Error(`${syscall} ${code}`), { code, syscall })
}

export class MemorySocket extends Duplex {
  readonly remoteAddress: string
  readonly remotePort: number
  readonly localAddress: string
  readonly localPort: number
  readonly remoteFamily: 'IPv4' | 'IPv6'
  bytesRead = 0
  bytesWritten = 0
  timeout = 0
  private peer!: MemorySocket
  private taken: (() => void) | null = null // tells the writer of this end that the other has taken what it wrote
  private timer: NodeJS.Timeout | null = null

  /** @returns two ends, connected */
  static pair (here: Address, there: Address): [MemorySocket, MemorySocket] {
    const one = new MemorySocket(here, there)
    const two = new MemorySocket(there, here)
    one.peer = two
    two.peer = one
    return [one, two]
  }

  private constructor (local: Address, remote: Address) {
    super({ allowHalfOpen: true })
    this.localAddress = local.address
    this.localPort = local.port
    this.remoteAddress = remote.address
    this.remotePort = remote.port
    this.remoteFamily = remote.address.includes(':') ? 'IPv6' : 'IPv4'
  }

  override _read (): void {
    const { taken } = this.peer
    this.peer.taken = null
    // Not within this call: what is pushed while a stream asks for more does not make it ask again.
    if (taken !== null) process.nextTick(taken)
  }

  override _write (piece: Buffer, _encoding: BufferEncoding, done: (error?: Error) => void): void {
    if (this.peer.destroyed) {
      done(systemError('EPIPE', 'write'))
      return
    }
    this.timer?.refresh()
    this.peer.timer?.refresh()
    this.bytesWritten += piece.length
    this.peer.bytesRead += piece.length
    this.taken = done
    // A copy: the reader of the other end decodes in place, and the writer's memory is the writer's.
    this.peer.push(Buffer.from(piece))
  }

  override _final (done: () => void): void {
    this.peer.push(null)
    done()
  }

  override _destroy (error: Error | null, done: (error: Error | null) => void): void {
    if (this.timer !== null) clearTimeout(this.timer)
    if (!this.writableFinished && !this.peer.destroyed) this.peer.push(null)
    this.peer.taken?.()
    this.peer.taken = null
    done(error)
  }

  /** Does not keep the process alive, as with any socket. */
  setTimeout (milliseconds: number): this {
    if (this.timer !== null) clearTimeout(this.timer)
    this.timeout = milliseconds
    this.timer = milliseconds > 0 ? setTimeout(() => this.emit('timeout'), milliseconds).unref() : null
    return this
  }

  destroySoon (): void {
    this.end(() => this.destroy())
  }

  resetAndDestroy (): this {
    this.peer.destroy(systemError('ECONNRESET', 'read'))
    return this.destroy()
  }

  setNoDelay (): this {
    return this
  }

  setKeepAlive (): this {
    return this
  }
}
