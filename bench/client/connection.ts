// One connection of the client. All connections read into one shared buffer: each read is processed before the next.

import { type Socket, connect } from 'node:net'
import type { Protocol, ResponseEvents, Session } from './session.ts'

const READ_BUFFER = Buffer.allocUnsafeSlow(256 * 1024)

export interface Target {
  port: number
  protocol: Protocol
  /** The address that the client connects from. Default: 127.0.0.1 */
  localAddress?: string
}

export class Connection {
  readonly socket: Socket
  readonly session: Session

  /** @param onClose gets the error, or null if the server closed the connection. It is not called after `destroy`. */
  constructor ({ port, protocol, localAddress }: Target, events: ResponseEvents, onClose: (error: Error | null) => void, onCredit: () => void = ignore) {
    let failure: Error | null = null
    this.session = protocol.createSession(events, (bytes) => { this.socket.write(bytes) }, onCredit)
    this.socket = connect({
      port,
      host: '127.0.0.1',
      localAddress,
      noDelay: true,
      onread: {
        buffer: READ_BUFFER,
        callback: (length) => {
          try {
            this.session.read(READ_BUFFER, length)
          } catch (error) {
            this.socket.destroy(error as Error)
          }
          return true
        }
      }
    })
    this.socket.on('error', (error) => { failure = error })
    this.socket.on('close', () => { if (!this.destroyed) onClose(failure) })
  }

  private destroyed = false

  /** Closes the connection. `onClose` is not called for it. */
  destroy (): void {
    this.destroyed = true
    this.socket.destroy()
  }
}

function ignore (): void {}
