// The proxy as a plugin: routes below a prefix, as @fastify/http-proxy has them.

import type { FastifyInstance, RouteOptions } from 'fastify'
import type { DuplexProxyOptions } from '../../types/proxy.d.ts'
import { Agent } from '../client/agent.ts'
import { proxy } from './proxy.ts'

/** See the public types. */
export async function duplexProxy (app: FastifyInstance, options: DuplexProxyOptions): Promise<void> {
  const { duplex = true, httpMethods = app.supportedMethods, preHandler, config, agent = new Agent(), ...rest } = options
  if (options.agent === undefined) app.addHook('onClose', async () => { agent.close() })
  const handler = proxy({ ...rest, agent, prefix: app.prefix })
  const route = { method: httpMethods, duplex, handler, ...(preHandler !== undefined && { preHandler }), ...(config !== undefined && { config }) }
  for (const url of ['/', '/*']) app.route({ ...route, url } as RouteOptions)
}
