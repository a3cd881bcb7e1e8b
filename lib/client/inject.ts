// app.injectDuplex(): makes a connection in memory, and gives it to the app's server as if it had been accepted on a port.

import type { FastifyInstance } from 'fastify'
import type { InjectedDuplex } from '../../types/index.d.ts'
import { InjectError } from '../errors.ts'
import { openInjected } from './memory-connection.ts'
import type { ClientOptions } from './items.ts'
import { MemorySocket } from './memory-socket.ts'

/** The port from which an injected request seems to come: the first of the ephemeral ports (RFC 6335 section 6). */
const CLIENT_PORT = 49152

/** `app.injectDuplex()`: see the public types. */
export async function injectDuplex (this: FastifyInstance, options: ClientOptions | string): Promise<InjectedDuplex> {
  await this.ready()
  const { http2, https } = this.initialConfig as { http2?: boolean, https?: boolean | { allowHTTP1?: boolean } }
  if (http2 && !(typeof https === 'object' && https.allowHTTP1)) throw new InjectError()
  const request = typeof options === 'string' ? { url: options } : options
  const [client, server] = MemorySocket.pair({ address: request.remoteAddress ?? '127.0.0.1', port: CLIENT_PORT }, { address: '127.0.0.1', port: https ? 443 : 80 })
  const exchange = openInjected(client, request)
  // The properties of an accepted socket: its server, and for TLS the negotiated protocol.
  Object.assign(server, { server: this.server }, https ? { encrypted: true, alpnProtocol: 'http/1.1' } : {})
  this.server.emit(https ? 'secureConnection' : 'connection', server)
  return exchange
}
