// The two ends of a connection in memory. They behave like sockets: backpressure, half-close, reset, timeout, addresses.

import { Duplex } from 'node:stream'

/** The address of one end. */
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
  private written: (() => void) | null = null // to call when the other end has read what this end wrote
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
    const { written } = this.peer
    this.peer.written = null
    // Not within this call: a stream that is pushed to while it asks for more does not ask again.
    if (written !== null) process.nextTick(written)
  }

  override _write (chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error) => void): void {
    if (this.peer.destroyed) {
      done(systemError('EPIPE', 'write'))
      return
    }
    this.timer?.refresh()
    this.peer.timer?.refresh()
    this.bytesWritten += chunk.length
    this.peer.bytesRead += chunk.length
    this.written = done
    // A copy: the other end decodes in place, and this memory is the caller's.
    this.peer.push(Buffer.from(chunk))
  }

  override _final (done: () => void): void {
    this.peer.push(null)
    done()
  }

  override _destroy (error: Error | null, done: (error: Error | null) => void): void {
    if (this.timer !== null) clearTimeout(this.timer)
    if (!this.writableFinished && !this.peer.destroyed) this.peer.push(null)
    this.peer.written?.()
    this.peer.written = null
    done(error)
  }

  /** Like the timeout of a socket, it does not keep the process alive. */
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
