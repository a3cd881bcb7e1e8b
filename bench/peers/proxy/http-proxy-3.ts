// http-proxy-3, which keeps its connections to the origin.

import { Agent, createServer } from 'node:http'
import { createProxyServer } from 'http-proxy-3'
import { serve } from '../serve.ts'

const proxy = createProxyServer({ target: `http://127.0.0.1:${process.argv[2]}`, agent: new Agent({ keepAlive: true }) })
proxy.on('error', (_error, _request, response) => { response.destroy() })

serve(createServer((request, response) => { proxy.web(request, response) }))
