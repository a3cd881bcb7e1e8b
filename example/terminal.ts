// A terminal client that shows both directions. It sends what you type, line by line, and shows the response as it arrives.
// Run `npm start` in one terminal, and `npm run example:terminal [http://127.0.0.1:3000/clock]` in another.

import { once } from 'node:events'
import { type IncomingMessage, request as httpRequest } from 'node:http'
import { createInterface } from 'node:readline'
import { pipeline } from 'node:stream/promises'
import { styleText } from 'node:util'

export async function converse (url: string, input: NodeJS.ReadableStream, output: NodeJS.WritableStream): Promise<void> {
  const show = (color: 'cyan' | 'green' | 'gray', direction: string, text: string): void => {
    for (const line of text.trimEnd().split('\n')) output.write(styleText(color, `${direction.padEnd(5)} ${line}\n`))
  }

  const request = httpRequest(url, { method: 'POST', headers: { 'content-type': 'text/plain; charset=utf-8' } })
  request.flushHeaders() // the server may answer before the first line is typed
  const typedLines = createInterface({ input })
  const sending = pipeline(async function * () {
    for await (const line of typedLines) {
      show('cyan', 'up', line)
      yield line + '\n'
    }
    show('gray', 'up', '(end)')
  }, request)

  const receiving = async (): Promise<void> => {
    const [response] = await once(request, 'response') as [IncomingMessage]
    show('gray', 'down', `${response.statusCode} ${response.statusMessage}`)
    response.setEncoding('utf8')
    for await (const chunk of response) show('green', 'down', chunk)
    show('gray', 'down', '(end)')
    if (Object.keys(response.trailers).length > 0) show('gray', 'down', JSON.stringify(response.trailers))
    typedLines.close() // the response has ended, so more input would be of no use
  }

  await Promise.all([sending, receiving()])
}

if (require.main === module) {
  converse(process.argv[2] ?? 'http://127.0.0.1:3000/upper', process.stdin, process.stdout).catch((error) => {
    console.error(error.message)
    process.exitCode = 1
  })
}
