// What TypeScript accepts, infers and refuses around the proxy. Compiled by `npm run types`, never run. An expected error that does
// not occur is an error.

import Fastify, { type FastifyReply, type FastifyRequest, type RouteHandlerMethod } from 'fastify'
import { Agent } from 'fastify-duplex/client'
import { type DuplexProxyOptions, type ForwardedRequest, type ForwardedResponse, type ProxyOptions, duplexProxy, proxy } from 'fastify-duplex/proxy'

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false

/** `exactly<string>()(value)` compiles if the type of `value` is string, and not if it is any or a subtype. */
declare function exactly<Expected> (): <Actual>(value: Actual, ...wrong: Same<Expected, Actual> extends true ? [] : [never]) => void

const app = Fastify()

exactly<RouteHandlerMethod>()(proxy({ upstream: 'http://127.0.0.1:4000' }))
app.all('/*', { duplex: true }, proxy({ upstream: new URL('unix:/run/app.sock'), agent: new Agent(), bodyTimeout: 0, expectTimeout: 100 }))
app.get('/chosen', { duplex: { idleTimeout: 1000 } }, proxy({
  upstream (request) {
    exactly<FastifyRequest>()(request)
    return request.url
  },
  rewriteRequest (head, request) {
    exactly<ForwardedRequest>()(head)
    exactly<FastifyRequest>()(request)
    return { ...head, method: 'PUT', headers: { ...head.headers, 'x-one': 1, 'x-many': ['a', 'b'], 'x-none': undefined } }
  },
  rewriteResponse (head, request, reply) {
    exactly<ForwardedResponse>()(head)
    exactly<FastifyRequest>()(request)
    exactly<FastifyReply>()(reply)
    return head
  }
}))

app.register(duplexProxy, { prefix: '/svc', upstream: 'http://127.0.0.1:4000', httpMethods: ['GET'], duplex: { bodyLimit: 1 }, preHandler: async (_request, reply) => reply.code(401).send() })

const options: DuplexProxyOptions = { upstream: 'http://a', rewritePrefix: '/api', forwarded: true, preserveHost: true }
exactly<ProxyOptions['prefix']>()(options.prefix)

// @ts-expect-error an upstream server is needed
proxy({})
// @ts-expect-error no such option
proxy({ upstream: 'http://a', rewriteprefix: '/' })
// @ts-expect-error a head must be returned
proxy({ upstream: 'http://a', rewriteRequest: () => {} })
// @ts-expect-error a head has a status code
proxy({ upstream: 'http://a', rewriteResponse: ({ headers }) => ({ headers }) })
// @ts-expect-error for each request at once
proxy({ upstream: async () => 'http://a' })
// @ts-expect-error an upstream server is needed
app.register(duplexProxy, { prefix: '/svc' })
