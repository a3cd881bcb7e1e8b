// httpxy, which keeps its connections to the origin.

import { Agent, createServer } from 'node:http'
import { serve } from '../serve.ts'

async function main (): Promise<void> {
  const { createProxyServer } = await import('httpxy')
  const proxy = createProxyServer({ target: `http://127.0.0.1:${process.argv[2]}`, agent: new Agent({ keepAlive: true }) })
  proxy.on('error', (_error, _request, response) => { response?.destroy() })
  serve(createServer((request, response) => { proxy.web(request, response) }))
}

main()
