import type { FastifyInstance } from 'fastify'
import { Agent, open } from '../../lib/client/index.ts'
import { duplexProxy, proxy } from '../../lib/proxy/index.ts'
import type { OpenOptions } from '../../types/client.d.ts'
import type { DuplexProxyOptions, ProxyOptions } from '../../types/proxy.d.ts'
import { make, run, testSnippets } from './snippets.ts'

testSnippets('docs/client-and-proxy.md', [
  ['import { Agent, open }', async (code, t) => {
    const app = await make(t)
    app.post('/upper', { duplex: true }, async function * (_request, reply) {
      const { value: chunk } = await reply.duplex[Symbol.asyncIterator]().next()
      yield String(chunk).toUpperCase()
    })
    const address = await app.listen({ port: 0, host: '127.0.0.1' })
    const written: string[] = []
    const load = async (): Promise<object> => ({ Agent, open: (url: string, options: OpenOptions) => open(url.replace('https://example.com', address), options) })
    const { signal } = new AbortController()
    await run(code, { load, ca: '', authorization: 'x', signal, process: { stdout: { write: (chunk: Buffer) => written.push(String(chunk)) } } })
    t.strictSame(written, ['HELLO'])
  }],
  ['import { duplexProxy, proxy }', async (code, t) => {
    const origin = await make(t)
    origin.get('/*', async ({ url, headers }) => `${url} ${headers['x-forwarded-for']}`)
    const upstream = await origin.listen({ port: 0, host: '127.0.0.1' })
    const app = await make(t)
    const load = async (): Promise<object> => ({
      proxy: (options: ProxyOptions) => proxy({ ...options, upstream }),
      duplexProxy: async (app: FastifyInstance, options: DuplexProxyOptions) => duplexProxy(app, { ...options, upstream })
    })
    await run(code, { app, load })
    t.equal((await app.inject('/files/a?b')).payload, '/files/a?b 127.0.0.1')
    t.equal((await app.inject('/api/c')).payload, '/v1/c undefined')
  }]
])
