// A connection in memory with its calls. Their requests are sent one after another, and their responses arrive in the same order.

import { maxHeaderSize } from 'node:http'
import type { InjectedDuplex } from '../../types/index.d.ts'
import { AbortedError } from '../errors.ts'
import { writeBuffers } from '../node/socket.ts'
import { asLanded } from '../relay/read-buffers.ts'
import { Call, type CallConnection } from './call.ts'
import type { ClientOptions } from './items.ts'
import type { MemorySocket } from './memory-socket.ts'
import { injectedStart, writePayload } from './request.ts'

/** None: the server is in the same process. */
const LIMITS = { maxHeadSize: maxHeaderSize, maxTrailerSize: Infinity, maxChunkExtensionSize: Infinity }

/**
 * Opens a call on a new connection.
 *
 * @throws the errors of `injectedStart`
 */
export function openInjected (socket: MemorySocket, options: ClientOptions): InjectedDuplex {
  return new MemoryConnection(socket).open(options)
}

class InjectedCall extends Call implements InjectedDuplex {
  private readonly shared: MemoryConnection

  constructor (shared: MemoryConnection, options: ClientOptions) {
    super(injectedStart(options), LIMITS)
    this.shared = shared
  }

  override get socket (): any {
    return this.shared.socket
  }

  next (options: ClientOptions): InjectedCall {
    return this.shared.open(options)
  }
}

class MemoryConnection implements CallConnection {
  readonly socket: MemorySocket
  private readonly sending: Call[] = [] // those whose request is not complete; the first one has its turn
  private readonly receiving: Call[] = [] // those whose response is not complete, in the same order

  constructor (socket: MemorySocket) {
    this.socket = socket
    socket.on('data', (data: Buffer) => this.onData(data))
    socket.on('end', () => this.onEnd())
    socket.on('error', (error) => this.onConnectionLost(error))
    socket.on('close', () => this.onConnectionLost(null))
  }

  open (options: ClientOptions): InjectedCall {
    const call = new InjectedCall(this, options)
    this.sending.push(call)
    this.receiving.push(call)
    if (this.sending.length === 1) this.start(call)
    if (this.socket.readableEnded || this.socket.destroyed) this.onConnectionLost(null)
    if (call.request.framing.kind !== 'none') writePayload(options, call)
    return call
  }

  read (): void {
    this.socket.resume()
  }

  pause (): void {
    this.socket.pause()
  }

  write (buffers: readonly Buffer[], done?: (error?: Error | null) => void): void {
    writeBuffers(this.socket, buffers, done)
  }

  end (done: () => void): void {
    this.socket.end(done)
  }

  onProgress (): void {
    const [call] = this.sending as (Call | undefined)[]
    // A request that offers to switch protocols is over when the server has refused.
    if (call === undefined || !call.hasSentRequest || call.maySwitch) return
    this.sending.shift()
    if (this.sending.length > 0) this.start(this.sending[0])
  }

  /** Sends the head at once: a test may write raw bytes behind it. */
  private start (call: Call): void {
    call.start(this)
    call.sendHead()
  }

  abort (): void {
    this.socket.destroy()
  }

  private onData (data: Buffer): void {
    let rest = data
    while (rest.length > 0 && this.receiving.length > 0) {
      const [call] = this.receiving
      rest = rest.subarray(call.receive(asLanded(rest)))
      if (call.hasReceivedResponse) this.receiving.shift()
    }
  }

  private onEnd (): void {
    for (const call of this.receiving.splice(0)) call.onEnd()
  }

  private onConnectionLost (error: Error | null): void {
    for (const call of this.receiving.splice(0)) call.fail(new AbortedError({ cause: error }))
  }
}
