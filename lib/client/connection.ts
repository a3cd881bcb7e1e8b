// A connection to a server. It has one call at a time. Between two calls it is idle, and belongs to the pool.

import type { Socket } from 'node:net'
import { ServerGoneError, ServerTimeoutError } from '../errors.ts'
import { resetConnection, startReading, stopReading, writeBuffers } from '../node/socket.ts'
import { type Landed, ReadBuffers, asLanded, bytesOf, copyForUser } from '../relay/read-buffers.ts'
import type { Call, CallConnection } from './call.ts'

/** Milliseconds that a request may take to its server. */
const MARGIN = 1000

type Done = (error?: Error | null) => void

export interface ConnectionTimeouts {
  /** Milliseconds until the head of the response must be there, once the request was sent or the response has begun. 0: no limit */
  readonly headersTimeout: number
  /** Milliseconds without any byte in either direction behind the head, unless the call is a tunnel. 0: no limit */
  readonly bodyTimeout: number
  /** Milliseconds to wait for a 100 (Continue) before the body is sent. */
  readonly expectTimeout: number
}

/** What the pool is told of its connection. */
export interface ConnectionOwner {
  /** The call is over, and the connection may be used for another one. */
  onIdle (connection: ClientConnection): void
  /** The connection is closed, or must not be used again. Called once. */
  onUnusable (connection: ClientConnection): void
  /** The connection was dead before the call. The call is to be sent on another one. */
  retry (call: Call): void
}

export class ClientConnection implements CallConnection {
  readonly socket: Socket
  /** Calls that the connection has had before the present one. */
  private uses = 0
  private call: Call | null = null
  private timeouts!: ConnectionTimeouts
  private readonly owner: ConnectionOwner
  private readonly buffers: ReadBuffers
  private isPaused = false
  private isUsable = true
  private hasReceived = false // bytes of the present response
  private isReceiving = false // in the current call stack
  private headTimer: NodeJS.Timeout | undefined
  private continueTimer: NodeJS.Timeout | undefined
  private keepAliveTimeout = Infinity // of the server, in milliseconds
  private error: Error | null = null

  constructor (socket: Socket, owner: ConnectionOwner) {
    this.socket = socket
    this.owner = owner
    this.buffers = new ReadBuffers(socket)
    socket.on('data', (data: Buffer) => this.onData(asLanded(data)))
    socket.on('end', () => this.onEnd())
    socket.on('error', (error) => { this.error = error })
    socket.on('close', () => this.onClose())
    socket.on('timeout', () => this.onTimeout())
    this.buffers.open((data) => {
      if (socket.listenerCount('data') > 1 || socket.readableLength > 0) return socket.push(copyForUser(data))
      this.onData(data)
      return !this.isPaused
    })
  }

  start (call: Call, timeouts: ConnectionTimeouts): void {
    this.call = call
    this.timeouts = timeouts
    this.hasReceived = false
    this.socket.setTimeout(0)
    this.socket.ref()
    if (call.request.expectsContinue) this.continueTimer = setTimeout(() => call.continueRequest(), timeouts.expectTimeout)
    call.start(this)
  }

  /** Keeps the connection until a call needs it, or for `idleTimeout` milliseconds. */
  keep (idleTimeout: number): void {
    this.socket.setTimeout(Math.min(idleTimeout, this.keepAliveTimeout))
    this.socket.unref()
  }

  /** Closes an idle connection. */
  close (): void {
    this.retire()
    this.socket.destroy()
  }

  // For the call

  read (): void {
    if (!this.isPaused) return
    this.isPaused = false
    startReading(this.socket)
  }

  pause (): void {
    if (this.isPaused) return
    this.isPaused = true
    stopReading(this.socket)
  }

  write (buffers: readonly Buffer[], done: Done): void {
    writeBuffers(this.socket, buffers, done)
  }

  end (done: Done): void {
    this.socket.end(done)
  }

  onProgress (): void {
    const { call, timeouts } = this
    if (call === null) return
    if (call.head === null) {
      if (call.hasSentRequest) this.startHeadTimer()
      return
    }
    if (this.headTimer !== undefined) this.stopTimers()
    if (call.head.statusCode !== 101 && call.request.method !== 'CONNECT' && timeouts.bodyTimeout > 0) this.socket.setTimeout(timeouts.bodyTimeout)
    this.finishIfOver(call)
  }

  private finishIfOver (call: Call): void {
    if (!this.isReceiving && call.hasSentRequest && call.hasReceivedResponse) this.finish(call)
  }

  abort (): void {
    this.leave()
    this.retire()
    resetConnection(this.socket)
  }

  /** The call is over, and nothing of it is left on the connection. */
  private finish (call: Call): void {
    const { socket } = this
    this.leave()
    if (!call.isPersistent || !this.isUsable || socket.readableEnded || !socket.writable) {
      this.retire()
      socket.destroySoon()
      return
    }
    this.uses++
    this.keepAliveTimeout = keepAliveTimeout(call.head!.headers['keep-alive'])
    this.read()
    this.owner.onIdle(this)
  }

  private leave (): void {
    this.call = null
    this.stopTimers()
    this.socket.setTimeout(0)
  }

  private retire (): void {
    if (!this.isUsable) return
    this.isUsable = false
    this.buffers.useShared()
    this.owner.onUnusable(this)
  }

  // Timeouts

  private startHeadTimer (): void {
    const { headersTimeout } = this.timeouts
    if (headersTimeout > 0) this.headTimer ??= setTimeout(() => this.fail(new ServerTimeoutError('answered', headersTimeout)), headersTimeout)
  }

  private stopTimers (): void {
    clearTimeout(this.headTimer)
    clearTimeout(this.continueTimer)
    this.headTimer = this.continueTimer = undefined
  }

  private onTimeout (): void {
    const { call, socket, timeouts } = this
    if (call === null) {
      this.close()
    } else if (this.isPaused) {
      socket.setTimeout(timeouts.bodyTimeout) // it is our side that does not read on
    } else {
      this.fail(new ServerTimeoutError('sent or taken anything', timeouts.bodyTimeout))
    }
  }

  private fail (error: Error): void {
    const { call } = this
    this.abort()
    call?.fail(error)
  }

  // Events of the socket

  private onData (data: Landed): void {
    const { call } = this
    if (call === null) {
      this.close() // nobody has asked for it, and it must not be taken for the response to the next request
      return
    }
    if (!this.hasReceived) {
      this.hasReceived = true
      this.startHeadTimer()
    }
    this.receive(call, data)
  }

  private receive (call: Call, data: Landed): void {
    let rest = bytesOf(data)
    this.isReceiving = true
    try {
      while (rest.length > 0 && this.call === call && !call.hasReceivedResponse) rest = rest.subarray(call.receive(asLanded(rest)))
    } finally {
      this.isReceiving = false
    }
    if (this.call !== call) return
    // Whose are they? They must not be taken for the response to the next request.
    if (rest.length > 0) call.isPersistent = false
    this.finishIfOver(call)
  }

  private onEnd (): void {
    const { call } = this
    if (call === null) this.close()
    else if (!this.retry(call)) call.onEnd()
  }

  private onClose (): void {
    const { call, error } = this
    this.leave()
    this.retire()
    if (call === null || call.destroyed || this.retry(call)) return
    if (!call.hasReceivedResponse) call.fail(new ServerGoneError({ cause: error ?? undefined }))
    else call.onConnectionLost()
  }

  /** A server may close an idle connection while a request is on its way. Then it has not read that request. */
  private retry (call: Call): boolean {
    if (this.hasReceived || this.uses === 0 || !call.mayRepeat) return false
    this.leave()
    call.repeat()
    this.owner.retry(call)
    this.close()
    return true
  }
}

/** How long the server keeps the connection, by its Keep-Alive field, less the time that a request may be on its way. */
function keepAliveTimeout (field: string | string[] | undefined): number {
  const [, seconds] = /\btimeout=(\d+)/.exec(String(field)) ?? []
  return seconds === undefined ? Infinity : Math.max(1, Number(seconds) * 1000 - MARGIN)
}
