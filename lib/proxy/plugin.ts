// The proxy as a plugin: routes below a prefix, as @fastify/http-proxy has them.

import type { FastifyInstance, RegisterOptions, RouteOptions } from 'fastify'
import type { DuplexProxyOptions } from '../../types/proxy.d.ts'
import { Agent } from '../client/agent.ts'
import { proxy } from './proxy.ts'

/** See the public types. */
export async function duplexProxy (app: FastifyInstance, options: DuplexProxyOptions & RegisterOptions): Promise<void> {
  // `register` passes its own options on, too.
  const { duplex = true, httpMethods = app.supportedMethods, preHandler, config, prefix: _, logLevel: _level, logSerializers: _serializers, ...rest } = options
  const agent = rest.agent ?? new Agent({ maxConnections: Infinity })
  if (rest.agent === undefined) app.addHook('onClose', async () => { agent.close() })
  const handler = proxy({ ...rest, agent, prefix: app.prefix })
  const route = { method: httpMethods, duplex, handler, ...(preHandler !== undefined && { preHandler }), ...(config !== undefined && { config }) }
  for (const url of ['/', '/*']) app.route({ ...route, url } as RouteOptions)
}
