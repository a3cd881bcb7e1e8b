// How a connection ends: with the rest of the request dropped, with a lingering close, or cut off.

import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { closeSoon, resetConnection, startReading } from '../node/socket.ts'

/** Limits the time in which the rest of a request is dropped after its response, so that the connection can be kept. */
export class Drain {
  /** It took too long. */
  hasFailed = false
  private timer: NodeJS.Timeout | null = null

  /** @param timeout milliseconds until `onTimeout` is called */
  start (timeout: number, onTimeout: () => void): void {
    this.timer = setTimeout(() => {
      this.hasFailed = true
      onTimeout()
    }, timeout)
  }

  stop (): void {
    if (this.timer !== null) clearTimeout(this.timer)
    this.timer = null
  }
}

/**
 * Closes a connection in stages (RFC 9112 section 9.6): ends our side, drops what the client still sends, and closes when the
 * client has ended its side. Closing a socket with unread bytes would reset the connection. The client could then lose the part
 * of the response that it has not read yet.
 *
 * @param isHalfClosed whether the client has ended its side, and nothing is left to read
 * @param timeout milliseconds until the socket is destroyed
 */
export function lingeringClose (socket: Socket, isHalfClosed: boolean, timeout: number): void {
  destroyAfter(socket, timeout)
  if (isHalfClosed) {
    closeSoon(socket)
    return
  }
  socket.on('end', () => closeSoon(socket))
  socket.on('data', ignore)
  startReading(socket)
  socket.end()
}

/** Destroys a socket that has not closed within `timeout` milliseconds. */
export function destroyAfter (socket: Duplex, timeout: number): void {
  const timer = setTimeout(() => socket.destroy(), timeout)
  socket.on('close', () => clearTimeout(timer))
}

/**
 * Closes a connection in the middle of a response, so that the client can tell that the response is incomplete.
 *
 * @param isCloseDelimited whether the body ends with the connection: a normal close (FIN) would then make it look complete
 */
export function cutOff (socket: Socket, isCloseDelimited: boolean): void {
  if (isCloseDelimited) resetConnection(socket)
  else socket.destroy()
}

function ignore (): void {}
