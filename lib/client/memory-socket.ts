// The two ends of a connection in memory. They behave like sockets: backpressure, half-close, reset, timeout, addresses.

import { Duplex } from 'node:stream'

/** The address of one end. */
export interface Address {
  address: string
  port: number
}

/** An error like those of the system that a real socket emits. */
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
  private confirmWrite: (() => void) | null = null // the callback of a write, until the other end has read it
  private timer: NodeJS.Timeout | null = null

  /** @returns the two ends of a new connection, the one at address `here` first */
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
    const { confirmWrite } = this.peer
    this.peer.confirmWrite = null
    // Not within this call: if data is pushed to a stream during its _read(), the stream does not call _read() again.
    if (confirmWrite !== null) process.nextTick(confirmWrite)
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
    this.confirmWrite = done
    // A copy, since this memory belongs to the caller, and the other end decodes in place.
    this.peer.push(Buffer.from(chunk))
  }

  override _final (done: () => void): void {
    this.peer.push(null)
    done()
  }

  override _destroy (error: Error | null, done: (error: Error | null) => void): void {
    if (this.timer !== null) clearTimeout(this.timer)
    if (!this.writableFinished && !this.peer.destroyed) this.peer.push(null)
    this.peer.confirmWrite?.()
    this.peer.confirmWrite = null
    done(error)
  }

  /** As `socket.setTimeout()`: the timer does not keep the process alive. */
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
