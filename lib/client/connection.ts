// A connection with its exchanges. Their requests are sent one after another, and their responses arrive in the same order.

import type { InjectedDuplex } from '../../types/index.d.ts'
import { AbortedError } from '../errors.ts'
import { Client, type Connection } from './client.ts'
import type { ClientOptions } from './items.ts'
import type { MemorySocket } from './memory-socket.ts'
import { requestStart, writePayload } from './request.ts'

/**
 * Opens an exchange on a new connection.
 *
 * @throws the errors of `requestStart`
 */
export function openClient (socket: MemorySocket, options: ClientOptions): InjectedDuplex {
  return new ClientConnection(socket).open(options)
}

class ClientConnection implements Connection {
  readonly socket: MemorySocket
  private readonly sending: Client[] = [] // those whose request is not complete; the first one has its turn
  private readonly receiving: Client[] = [] // those whose response is not complete, in the same order

  constructor (socket: MemorySocket) {
    this.socket = socket
    socket.on('data', (data: Buffer) => this.onData(data))
    socket.on('end', () => this.onEnd())
    socket.on('error', (error) => this.onConnectionLost(error))
    socket.on('close', () => this.onConnectionLost(null))
  }

  open (options: ClientOptions): Client {
    const start = requestStart(options)
    const client = new Client(this, start)
    this.sending.push(client)
    this.receiving.push(client)
    if (this.sending.length === 1) client.sendHead()
    if (this.socket.readableEnded || this.socket.destroyed) this.onConnectionLost(null)
    if (start.framing.kind !== 'none') writePayload(options, client)
    return client
  }

  onSent (): void {
    this.sending.shift()
    this.sending[0]?.sendHead()
  }

  private onData (data: Buffer): void {
    let rest = data
    while (rest.length > 0 && this.receiving.length > 0) {
      const [client] = this.receiving
      rest = rest.subarray(client.receive(rest))
      if (client.hasReceivedResponse) this.receiving.shift()
    }
  }

  private onEnd (): void {
    for (const client of this.receiving.splice(0)) client.onEnd()
  }

  private onConnectionLost (error: Error | null): void {
    for (const client of this.receiving.splice(0)) client.fail(new AbortedError({ cause: error }))
  }
}
