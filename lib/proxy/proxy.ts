// A handler that passes its exchange on to another server: it is the client of that server.

import type { RouteHandlerMethod } from 'fastify'
import type { ProxyOptions } from '../../types/proxy.d.ts'
import { OptionError } from '../errors.ts'
import type { HttpDuplex } from '../exchange/http-duplex.ts'
import { kPassesHandshakes } from '../handoff/websocket-routes.ts'
import { Passage } from './passage.ts'
import { Upstream } from './upstream.ts'

/** See the public types. */
export function proxy (options: ProxyOptions): RouteHandlerMethod {
  const upstream = new Upstream(options)
  const handler: RouteHandlerMethod = async (request, reply) => {
    const duplex = reply.duplex as HttpDuplex | undefined
    if (duplex === undefined) throw new OptionError('upstream', 'a proxy needs a route with "duplex: true"')
    if (duplex.destroyed) return // the client has left during the hooks
    const { call, send } = upstream.callFor(request, duplex)
    const passage = new Passage(request, reply, call, options).run()
    send()
    await passage
  }
  return Object.assign(handler, { [kPassesHandshakes]: true })
}
